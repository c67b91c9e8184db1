"""Interruption by Ctrl-C or SIGTERM, which C++ libraries may drop or turn into errors of their own."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# What Python does by itself at each signal: only in its place is ours set.
USUAL: dict[signal.Signals, Callable[[int, FrameType | None], Any] | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class Watch:
    """A handler of both signals that does as Python's own of Ctrl-C, and remembers which came; 0 for none."""

    def __init__(self) -> None:
        self.came = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal, and raise KeyboardInterrupt."""
        self.came = number
        signal.default_int_handler(number, frame)


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Within it, Ctrl-C and SIGTERM raise KeyboardInterrupt, and are remembered whatever a library makes of that.

    Where a signal has another meaning (a background job ignores Ctrl-C, another handler is set) or can't be handled
    (another thread), nothing is changed.
    """
    watch = Watch()
    ours = threading.current_thread() is threading.main_thread()
    taken = [number for number, usual in USUAL.items() if ours and signal.getsignal(number) is usual]
    for number in taken:
        signal.signal(number, watch)
    try:
        yield watch
    finally:
        for number in taken:
            signal.signal(number, USUAL[number])


def stop_if_interrupted() -> None:
    """Raises KeyboardInterrupt when a signal came under `watched` and the run went on all the same."""
    for number in USUAL:
        handler = signal.getsignal(number)
        if isinstance(handler, Watch) and handler.came:
            raise KeyboardInterrupt


def reraise_interrupt(error: BaseException) -> None:
    """Raises the KeyboardInterrupt that is the reason of the error, if one is. To be called before an error of
    any kind is put in other words or dropped.
    """
    reason: BaseException | None = error
    seen: set[int] = set()
    while reason is not None and id(reason) not in seen:
        if isinstance(reason, KeyboardInterrupt):
            raise reason
        seen.add(id(reason))
        reason = reason.__cause__ or reason.__context__
