"""Temporary folders that go with their process, however that ends.

Each has a lock beside it that lives as long as the process. What a killed process left has a lock that nobody holds:
the next process that needs a folder removes it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgecompress_runtime.storage import private_folder

LOCK = ".lock"


@contextmanager
def work_folder() -> Iterator[str]:
    """A new folder, which goes at the end of the `with` statement; where the process is killed, with the next one."""
    try:
        parent = private_folder.temporary("work")
    except private_folder.NotPrivateError:  # somebody else has prepared a folder of that name
        with tempfile.TemporaryDirectory(prefix="edgecompress-") as elsewhere:
            yield elsewhere
        return
    _remove_left(parent)
    folder, lock = _new(parent)
    try:
        yield str(folder)
    finally:
        _remove(folder)
        os.close(lock)


def _new(parent: Path) -> tuple[Path, int]:
    """(a new folder, its lock, which this process holds)."""
    while True:
        folder = parent / f"{os.getpid()}-{secrets.token_hex(6)}"
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else another process took it for one that was left
            folder.mkdir(mode=0o700)
            return folder, lock
        os.close(lock)


def _remove_left(parent: Path) -> None:
    for path in parent.glob(f"*{LOCK}"):
        with suppress(OSError):  # held by another, or gone by now
            lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path.with_name(path.name.removesuffix(LOCK)))
            finally:
                os.close(lock)


def _remove(folder: Path) -> None:
    """The folder, and then its lock: what is left of it can be found again as long as the lock is there."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK)
