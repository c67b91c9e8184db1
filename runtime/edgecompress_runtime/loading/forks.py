"""What threads and forks need: one compilation at a time, and locks that a fork does not find held.

A forked process has one thread, that which forked. A lock that another thread of its parent held would stay held there.
"""

from __future__ import annotations

import logging  # noqa: F401 (its hook has to be registered before ours: hooks in front of a fork run last first)
import os
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """What has to do something in a forked process before it is used there."""

    def after_fork(self) -> None:
        """Forget locks and threads: those of the parent are not here."""


# Numba compiles one thing at a time, and its own lock does not cover all that is used here. A fork waits for whoever
# compiles: a compilation, or an import for it, that another thread began can't be ended there. It waits before it takes
# the lock of `logging`, which a compilation needs.
COMPILING = threading.RLock()
_MODELS: weakref.WeakSet[Forked] = weakref.WeakSet()


def watched(model: Forked) -> None:
    """Has `model.after_fork()` called in every forked process, as long as the model lives."""
    _MODELS.add(model)


def _in_child() -> None:
    COMPILING.release()
    for model in list(_MODELS):
        model.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=COMPILING.acquire, after_in_parent=COMPILING.release, after_in_child=_in_child)
