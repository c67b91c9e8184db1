"""Folders that belong to this user alone: for compiled code, and for locks.

What lies in a folder that others can write to, or that another user prepared, may be code of theirs or a link to a file
of ours. So a private folder is a folder of this user's with mode 0700, and no symbolic link.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

DIRECTORY = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class NotPrivateError(OSError):
    """A folder that is not this user's alone, or can't be made; the message says which, and why."""


def private(base: Path, *names: str) -> Path:
    """The folder `base/name/name...`. `base` is taken as it is, or made; each folder named below it is made private.

    A folder of this user's with another mode gets mode 0700. Raises NotPrivateError for one that is another user's,
    that is a link, or that can't be made.
    """
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            base = base / name
            base.mkdir(mode=0o700, exist_ok=True)
            _claim(base)
    except NotPrivateError:
        raise
    except OSError as error:
        raise NotPrivateError(f"{base}: {error.strerror}") from error
    return base


def cache(*names: str) -> Path:
    """A private folder in the user's cache, XDG_CACHE_HOME or ~/.cache. Raises NotPrivateError."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:  # a user without a home
        raise NotPrivateError(str(error)) from error
    return private(home, "edgecompress", *names)


def of_code(*names: str) -> Path:
    """A private folder for compiled code, below NUMBA_CACHE_DIR where that is set. Raises NotPrivateError."""
    numba = os.environ.get("NUMBA_CACHE_DIR")
    return private(Path(numba), *names) if numba else cache(*names)


def temporary(*names: str) -> Path:
    """A private folder in the folder for temporary files. Raises NotPrivateError."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return private(Path(tempfile.gettempdir()), f"edgecompress-{user}", *names)


def _claim(folder: Path) -> None:
    """Raises NotPrivateError unless the folder is this user's alone, or can be made so."""
    if os.name != "posix":
        return  # a user's folders are private there
    if folder.is_symlink():
        raise NotPrivateError(f"{folder} is a symbolic link: remove it")
    opened = os.open(folder, os.O_RDONLY | DIRECTORY)  # the folder that is checked is the one that is changed
    try:
        status = os.fstat(opened)
        if status.st_uid != os.geteuid():
            raise NotPrivateError(f"{folder} belongs to user {status.st_uid}, not to {os.geteuid()}: remove it")
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(opened, 0o700)
    finally:
        os.close(opened)
