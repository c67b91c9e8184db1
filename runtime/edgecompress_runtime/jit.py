"""Kernels compiled for this machine; machine code is kept on disk.

Numba's own cache looks at the file of the compiled function alone, and a kernel takes in helpers from other
files: so the folder is named after the digest of them all. Numba unpickles what it finds there: so the folder is this
user's alone, or nothing is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

from edgecompress_runtime.storage import private_folder


@cache
def compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    """The kernel as machine code, compiled or loaded when it is first called with arguments of new types."""
    folder = cache_folder()
    if folder is None:
        return numba.njit(kernel, error_model="numpy", nogil=True)
    config: Any = numba.config
    with global_compiler_lock:
        previous, config.CACHE_DIR = config.CACHE_DIR, str(folder)
        try:
            return numba.njit(kernel, cache=True, error_model="numpy", nogil=True)
        finally:
            config.CACHE_DIR = previous


@cache
def cache_folder() -> Path | None:
    """In the user's cache, named after the digest of the kernels' sources; None where it would not be private."""
    sources = sorted((Path(__file__).parent / "kernels").glob("*.py"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    try:
        return private_folder.of_code(f"kernels-{digest[:16]}")
    except private_folder.NotPrivateError:
        return None
