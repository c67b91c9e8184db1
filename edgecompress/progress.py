"""Progress bars: nothing under a second, nothing when nobody looks."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY_SECONDS = 1.0


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show `title` on a terminal's stderr once the block has taken a second; gone when it ends.

    Yields `advance(n)`: n more of `total` are done. Without a total, or before the first advance, the bar
    only moves. Silent when stderr is not a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda n: None
        return
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )
    task = bar.add_task(title, total=None)
    state = {"done": 0, "open": True, "shown": False}
    lock = threading.Lock()

    def show() -> None:
        with lock:  # the block may end just as the timer fires
            if state["open"]:
                bar.start()
                state["shown"] = True

    def advance(n: int) -> None:
        state["done"] += n
        bar.update(task, completed=state["done"], total=total)

    timer = threading.Timer(DELAY_SECONDS, show)
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        with lock:
            state["open"] = False
        if state["shown"]:
            bar.stop()
