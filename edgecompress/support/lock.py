"""One process at a time: at a device, or at an output folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(kind: str, resource: str, taken: Callable[[str], Exception]) -> Iterator[None]:
    """While inside, no other process of this user has the resource (a port, an address, a path).

    kind: a word for what it is. taken: the error to raise when another has it, given that process's number.
    The lock goes with the process, however that ends.
    """
    path = _folder(kind) / f"{hashlib.sha256(resource.encode()).hexdigest()[:16]}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise taken(file.read().strip() or "unknown") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _folder(kind: str) -> Path:
    """In the user's cache; where that can't be written, in the folder of temporary files."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    for base in (home / "edgecompress", Path(tempfile.gettempdir()) / f"edgecompress-{os.getuid()}"):
        try:
            (base / kind).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(base / kind, os.W_OK):
            return base / kind
    raise OSError(f"no folder for locks: neither {home} nor {tempfile.gettempdir()} can be written to")
