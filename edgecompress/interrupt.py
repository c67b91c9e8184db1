"""Ctrl-C, which reaches Python code called from C++ and comes back as an error of the library's own."""
from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def watched() -> Iterator[threading.Event]:
    """Yields an event that is set once Ctrl-C came, whatever a library then made of the KeyboardInterrupt.

    Where Ctrl-C has another meaning (a background job ignores it, another handler is set, or this isn't the
    main thread), nothing is changed.
    """
    came = threading.Event()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield came
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def reraise_interrupt(error: BaseException) -> None:
    """Raises the KeyboardInterrupt that is the reason of the error, if one is; to be called before an error of
    any kind is reworded or dropped.
    """
    seen: set[int] = set()
    reason: BaseException | None = error
    while reason is not None and id(reason) not in seen:
        if isinstance(reason, KeyboardInterrupt):
            raise reason
        seen.add(id(reason))
        reason = reason.__cause__ or reason.__context__
