"""Ctrl-C, which libraries in C++ hand back as errors of their own, or drop."""
from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Watch:
    """A handler of Ctrl-C that does as Python's own and remembers that it came."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.default_int_handler(number, frame)


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Within it, Ctrl-C is remembered whatever a library makes of the KeyboardInterrupt.

    Where it has another meaning (a background job ignores it, another handler is set) or can't be handled
    (another thread), nothing is changed.
    """
    watch = Watch()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield watch
        return
    signal.signal(signal.SIGINT, watch)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_if_interrupted() -> None:
    """Raises KeyboardInterrupt when Ctrl-C came under `watched` and the run went on all the same."""
    handler = signal.getsignal(signal.SIGINT)
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
