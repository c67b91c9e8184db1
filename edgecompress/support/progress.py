"""Progress bars: nothing under a second, nothing when nobody looks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgecompress.support.log import is_quiet, is_verbose

DELAY_SECONDS = 1.0


@contextmanager
def progress(title: str, total: int | None = None, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Show `title` on a terminal's stderr once the block has taken a second; gone when it ends.

    Yields `advance(n, note="")`: n more of `total` are done; the note is shown behind the bar. Without a total,
    or before the first advance, the bar only moves. Silent when stderr is not a terminal, or not `shown`, and where
    lines say what happens (-v), or nothing does (-q).
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from edgecompress.support.console import VisibleConsole

    console = VisibleConsole(stderr=True)
    if not console.is_terminal or not shown or is_quiet() or is_verbose():
        yield lambda n, note="": None
        return
    left = (TextColumn("left"), TimeRemainingColumn()) if total is not None else ()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    bar = Progress(*columns, *left, console=console, transient=True)
    task = bar.add_task(title, total=None, note="")
    state = {"done": 0, "open": True, "shown": False}
    lock = threading.Lock()

    def show() -> None:
        with lock:  # the block may end just as the timer fires
            if state["open"]:
                bar.start()
                state["shown"] = True

    def advance(n: int, note: str = "") -> None:
        state["done"] += n
        bar.update(task, completed=state["done"], total=total, note=note)

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
