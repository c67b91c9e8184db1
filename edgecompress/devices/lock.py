"""One run at a time on one device."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecompress.errors import DeviceFault


@contextmanager
def locked(name: str, resource: str | None) -> Iterator[None]:
    """While inside, no other process of this user has the resource (a port, an address). None: nothing is locked.

    The lock goes with the process, however that ends. Raises DeviceFault when it is taken.
    """
    if resource is None:
        yield
        return
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(home, "edgecompress", "devices").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(resource.encode()).hexdigest()[:16]}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise DeviceFault(f"device {name} ({resource}) is in use by process {file.read().strip() or 'unknown'}: "
                              "wait for it, or end it") from error  # fmt: skip
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
