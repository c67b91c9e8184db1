"""Writes the files of a run: all of them or none, and never over an input."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgecompress.errors import InputError

_PREFIX = f".edgecompress-{re.sub(r'[^A-Za-z0-9]', '', platform.node())}-"  # of temporary folders; a process follows


def require_writable(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Raises InputError when the folder can't be written to, or when an input would be overwritten, maybe by a link."""
    try:
        existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    except OSError as error:  # a name that is too long
        raise InputError(f"{folder}: can't write here: {error.strerror or error}") from error
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"{folder}: can't write here: {existing} is not a folder with permission to write")
    for name in names:
        path = folder / name
        if path.is_dir():
            raise InputError(f"{path}: can't write: there is a folder of this name")
        for source in inputs:
            if path.exists() and source.exists() and path.samefile(source):
                raise InputError(f"{path} is an input and would be overwritten: choose another folder")


def stale_files(folder: Path, report: str, names: Iterable[str], inputs: Sequence[Path]) -> list[str]:
    """Artifacts of the run before in the folder: those that its report lists and nobody has changed since.

    Not those of `names`, which are written over, and no input of this run. Whatever the report says, only a
    file in the folder itself with the content that was listed is named.
    """
    try:
        listed = json.loads((folder / report).read_bytes())["artifacts"]
        hashes = {entry["path"]: entry["sha256"] for entry in listed}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # none, or another program's
        return []
    there = set(os.listdir(folder)) - {report, *names}
    return [n for n in hashes if n in there and _unchanged(folder / n, hashes[n], inputs)]


def _unchanged(path: Path, sha256: object, inputs: Sequence[Path]) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if any(source.exists() and path.samefile(source) for source in inputs):
        return False
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:  # not ours to read, so not ours to remove
        return False


def write_files(folder: Path, files: Mapping[str, bytes], stale: Iterable[str] = ()) -> None:
    """Write every file whole to a temporary folder beside the output folder, then rename each into place, and
    the stale ones of the run before out of it; a new output folder appears with all of them at once.

    An interruption leaves neither a half-written file nor the temporary folder, and the run before as it was. What a
    killed process left is put in order by the next one that writes there.
    Raises InputError when the folder can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Inside the folder when there is one: it may be a mount point, and renaming stays in one file system.
        beside = folder if folder.is_dir() else folder.parent
        _recover(beside, folder)
        temporary = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=beside))
    except OSError as error:
        raise InputError(f"{folder}: can't write here: {error.strerror or error}") from error
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        old.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        if not folder.exists():
            new.rename(folder)
            return
        try:
            _swap(folder, new, old, files, stale)
        except BaseException:
            _restore(folder, new, old, files)
            raise
    except OSError as error:
        path = folder / Path(error.filename).name if error.filename else folder
        raise InputError(f"{path}: can't write: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _recover(beside: Path, folder: Path) -> None:
    """Ends what processes of this machine that are no more have begun: files of the run before that were on their way
    out come back where no new one has taken their place."""
    for left in beside.glob(f"{_PREFIX}*-*"):
        process = left.name.removeprefix(_PREFIX).split("-")[0]
        if not process.isdecimal() or _is_alive(int(process)):
            continue
        for path in (left / "old").glob("*") if beside == folder else ():
            if not (folder / path.name).exists():
                os.replace(path, folder / path.name)
        shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _swap(folder: Path, new: Path, old: Path, names: Iterable[str], stale: Iterable[str]) -> None:
    for name in stale:
        os.replace(folder / name, old / name)
    for name in names:
        if os.path.lexists(folder / name):
            os.replace(folder / name, old / name)
        os.replace(new / name, folder / name)


def _restore(folder: Path, new: Path, old: Path, names: Iterable[str]) -> None:
    """Undoes `_swap` from wherever it stopped: what has left `new` is in the folder, and goes."""
    for name in names:
        if not (new / name).exists():
            (folder / name).unlink(missing_ok=True)
    for path in old.iterdir():
        os.replace(path, folder / path.name)
