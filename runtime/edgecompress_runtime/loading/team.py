"""Threads that run a compiled model together, each its function (meeting.py).

A thread waits for the next inference in machine code, without Python's lock, for some tenths of a millisecond; then it
sleeps, so that a model which is not used takes no time.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecompress_runtime.codegen.meeting import BEGUN, ENTRY, FINISHED, LINE, STOP, SYNC


class Team:
    """Threads that compute one inference together."""

    def __init__(self, engine: Any, memory: Sequence[np.ndarray], threads: int) -> None:
        """Starts all threads but one. engine: that has the code. memory: what the functions take: arena, inputs and
        outputs."""
        self._engine, self._memory, self._threads = engine, tuple(memory), threads
        self._start()

    def _start(self) -> None:
        self._shared = shared = _Shared(self._engine, self._memory)
        self._first = shared.function(f"{ENTRY}_0", None)
        for number in range(1, self._threads):
            waiting = shared.function(f"{ENTRY}_wait_{number}", ctypes.c_int64)
            threading.Thread(target=shared.work, args=(waiting,), daemon=True, name=f"edgecompress {number}").start()
        self._end = weakref.finalize(self, shared.end)

    def after_fork(self) -> None:
        """In a forked process: the next call starts threads, and nobody waits for those of the parent."""
        self._end.detach()

    def __call__(self) -> None:
        """One inference: this thread does its share, the others theirs. One call at a time."""
        if not self._end.alive:  # in a fork, which has none of its parent's threads
            self._start()
        count = self._shared.finished
        try:
            self._shared.begin(count + 1)
            self._first(*self._shared.places, count)
        except BaseException:  # Ctrl-C: the others wait for this thread, and must not see the next inputs
            if self._shared.finished == count:
                self._shared.begin(count + 1)
                self._first(*self._shared.places, count)
            raise


class _Shared:
    """What the threads need, and nothing that keeps their model alive."""

    def __init__(self, engine: Any, memory: Sequence[np.ndarray]) -> None:
        whole = np.zeros(SYNC + LINE, np.uint8)
        start = -whole.ctypes.data % LINE
        self._sync = whole[start : start + SYNC].view(np.int64)
        self._kept = engine, memory
        self.places = [ctypes.c_void_p(array.ctypes.data) for array in (*memory, self._sync)]
        self._wake, self._asleep = threading.Condition(), 0

    def function(self, name: str, result: Any) -> Any:
        kinds = [*[ctypes.c_void_p] * len(self.places), ctypes.c_int64]
        return ctypes.CFUNCTYPE(result, *kinds)(self._kept[0].get_function_address(name))

    @property
    def finished(self) -> int:
        """How many rounds are finished."""
        return int(self._sync[FINISHED // 8])

    def begin(self, count: int) -> None:
        """The `count`th round."""
        self._set(BEGUN, count)

    def end(self) -> None:
        self._set(STOP, 1)

    def _set(self, place: int, value: int) -> None:
        self._sync[place // 8] = value
        with self._wake:  # a thread that saw the old value is asleep by now
            if self._asleep:
                self._wake.notify_all()

    def work(self, waiting: Any) -> None:
        done = 0
        while True:
            done = waiting(*self.places, done)
            with self._wake:
                while self._sync[BEGUN // 8] == done and not self._sync[STOP // 8]:
                    self._asleep += 1
                    self._wake.wait()
                    self._asleep -= 1
                if self._sync[STOP // 8]:
                    return
