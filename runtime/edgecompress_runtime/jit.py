"""Kernels compiled for this machine; machine code is kept on disk.

Numba's own cache looks at the file of the compiled function alone, and a kernel takes in helpers from other
files: so the folder is named after the digest of them all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


@cache
def compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    """The kernel as machine code, compiled or loaded when it is first called with arguments of new types."""
    config: Any = numba.config
    previous, config.CACHE_DIR = config.CACHE_DIR, str(cache_folder())
    try:
        return numba.njit(kernel, cache=True, error_model="numpy", nogil=True)
    finally:
        config.CACHE_DIR = previous


@cache
def cache_folder() -> Path:
    """NUMBA_CACHE_DIR, or the user's cache folder, and the digest of the kernels' sources."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = os.environ.get("NUMBA_CACHE_DIR") or Path(home) / "edgecompress"
    sources = sorted((Path(__file__).parent / "kernels").glob("*.py"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    return Path(base) / f"kernels-{digest[:16]}"
