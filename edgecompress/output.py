"""Writing a run's files: all of them or none, and never over an input."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgecompress.errors import InputError


def require_writable(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Raises InputError when the folder can't be written, or a file in it is, maybe by a link, an input."""
    try:
        existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    except OSError as error:  # a name that is too long
        raise InputError(f"{folder}: can't write here: {error.strerror or error}") from error
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"{folder}: can't write here: {existing} is not a folder with permission to write")
    for name in names:
        path = folder / name
        if path.is_dir():
            raise InputError(f"{path}: can't write: a folder has this name")
        for source in inputs:
            if path.exists() and source.exists() and path.samefile(source):
                raise InputError(f"{path} would be overwritten, and is an input: choose another folder")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write every file whole to a temporary folder beside the output folder, then rename each into place.

    An interruption leaves neither a half-written file nor the temporary folder. Raises InputError when the
    folder can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Inside the folder when there is one: it may be a mount point, and renaming stays in one file system.
        beside = folder if folder.is_dir() else folder.parent
        temporary = Path(tempfile.mkdtemp(prefix=".edgecompress-", dir=beside))
    except OSError as error:
        raise InputError(f"{folder}: can't write here: {error.strerror or error}") from error
    try:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        folder.mkdir(exist_ok=True)
        for name in files:
            os.replace(temporary / name, folder / name)
    except OSError as error:
        path = folder / Path(error.filename).name if error.filename else folder
        raise InputError(f"{path}: can't write: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
