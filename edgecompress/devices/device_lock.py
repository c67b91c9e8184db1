"""One run at a time on one device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from edgecompress.errors import DeviceFault
from edgecompress.support import lock


def locked(name: str, resource: str | None) -> AbstractContextManager[None]:
    """While inside, no other process of this user has the resource (a port, an address). None: nothing is locked.

    Entering raises DeviceFault when it is taken.
    """
    if resource is None:
        return nullcontext()
    message = f"device {name} ({resource}) is in use by process"
    return lock.locked("devices", resource, lambda process: DeviceFault(f"{message} {process}: wait for it, or end it"))
