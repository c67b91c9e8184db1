"""Files that this package keeps for itself in a private folder, and what their names have to depend on.

A file starts with an authentication code of its name and contents under a key of this user's: one that is damaged,
that was written for another name, or that somebody else made, is as good as none.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

DIGEST = 32  # bytes, of an authentication code (HMAC-SHA256)
KEY = 32  # bytes


def read(path: Path) -> bytes | None:
    """The contents; None where there is no such file, or one that was not written here under this name."""
    try:
        key, data = _key(path.parent), path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    if not hmac.compare_digest(data[:DIGEST], _code(key, path, memoryview(data)[DIGEST:])):
        return None
    return data[DIGEST:]


def write(path: Path, *parts: bytes, most: int) -> None:
    """All or nothing; a folder that can't be written to is no error. most: files of this suffix that are kept; the ones
    not read for longest go."""
    with suppress(OSError):
        _put(path, _code(_key(path.parent), path, *parts), *parts)
        for old in sorted(path.parent.glob(f"*{path.suffix}"), key=lambda p: -p.stat().st_mtime)[most:]:
            old.unlink()


@cache
def sources() -> str:
    """A digest of this package's code."""
    files: Iterable[Path] = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _code(key: bytes, path: Path, *parts: bytes | memoryview) -> bytes:
    code = hmac.new(key, path.name.encode() + b"\n", hashlib.sha256)
    for part in parts:  # not joined: the code of a large model is large
        code.update(part)
    return code.digest()


def _key(folder: Path) -> bytes:
    """This user's key, made where there is none. Raises OSError."""
    path = folder / "key"
    if not path.exists():
        _put(path, secrets.token_bytes(KEY))
    key = path.read_bytes()
    if len(key) != KEY:
        path.unlink()
        raise OSError(f"{path} is damaged")
    return key


def _put(path: Path, *parts: bytes) -> None:
    """The whole file or none, readable by this user alone. Raises OSError."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.writelines(parts)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
