"""One process at a time: at a device, or at an output folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecompress_runtime.storage import private_folder


@contextmanager
def locked(kind: str, resource: str, taken: Callable[[str], Exception]) -> Iterator[None]:
    """While inside, no other process of this user has the resource (a port, an address, a path).

    kind: a word for what it is. taken: the error to raise when another has it, given that process's number.
    The lock goes with the process, however that ends. Raises OSError where no folder can hold it.
    """
    path = _folder(kind) / f"{hashlib.sha256(resource.encode()).hexdigest()[:16]}.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise taken(file.read().strip() or "unknown") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _folder(kind: str) -> Path:
    """In the user's cache; where that can't be written, in the folder of temporary files."""
    reasons = []
    for place in (private_folder.cache, private_folder.temporary):
        try:
            folder = place(kind)
        except private_folder.NotPrivateError as error:
            reasons.append(str(error))
            continue
        if os.access(folder, os.W_OK):
            return folder
        reasons.append(f"{folder} can't be written to")
    raise OSError(f"no folder for locks: {'; '.join(reasons)}")
