"""A model as machine code, and its place on disk.

The file's name is the digest of all that the code depends on: the pack, the CPU's variant, this package's sources,
LLVM's version. The file starts with the digest of its own contents, so that a damaged one is compiled again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from edgecompress_runtime.plan import Tensor

DIGEST = 32  # bytes
KEPT = 64  # files; the ones not read for longest go


@dataclass(frozen=True, eq=False)
class Artifact:
    """code: an object file. arena: bytes that the code works in. inputs, outputs: without data. threads: that it is
    for."""

    code: bytes
    arena: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    threads: int = 1


def place(pack: bytes, variant: str, threads: int = 1) -> Path:
    """Where the code of a pack lies, or will lie."""
    cpu = llvm.get_host_cpu_name() if variant == "generic" else ""
    parts = (
        variant,
        str(threads),
        platform.machine(),
        cpu,
        llvmlite.__version__,
        _sources(),
        hashlib.sha256(pack).hexdigest(),
    )
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("NUMBA_CACHE_DIR") or Path(folder) / "edgecompress"
    return Path(home) / "models" / f"{digest[:32]}.native"


def read(path: Path) -> Artifact | None:
    """None where there is none, or a damaged one."""
    try:
        data = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    if data[:DIGEST] != hashlib.sha256(data[DIGEST:]).digest():
        return None
    header, code = data[DIGEST:].split(b"\n", 1)
    fields = json.loads(header)
    inputs, outputs = (tuple(_tensor(t) for t in fields[role]) for role in ("inputs", "outputs"))
    return Artifact(code, fields["arena"], inputs, outputs, fields["threads"])


def write(path: Path, artifact: Artifact) -> None:
    """All or nothing; a folder that can't be written to is no error."""
    fields = {"arena": artifact.arena, "threads": artifact.threads} | {
        role: [_fields(t) for t in tensors]
        for role, tensors in (("inputs", artifact.inputs), ("outputs", artifact.outputs))
    }
    data = json.dumps(fields).encode() + b"\n" + artifact.code
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(data).digest() + data)
        part.replace(path)
        for old in sorted(path.parent.glob("*.native"), key=lambda p: -p.stat().st_mtime)[KEPT:]:
            old.unlink()
    except OSError:
        with suppress(OSError):
            part.unlink()


@cache
def _sources() -> str:
    files: Iterable[Path] = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _fields(t: Tensor) -> dict[str, Any]:
    return {
        "name": t.name,
        "shape": t.shape,
        "dtype": t.dtype.name,
        "scale": [float(s) for s in t.scale],
        "zero_point": [int(z) for z in t.zero_point],
        "axis": t.axis,
    }


def _tensor(f: dict[str, Any]) -> Tensor:
    scale, zero_point = np.array(f["scale"], np.float32), np.array(f["zero_point"], np.int32)
    return Tensor(f["name"], tuple(f["shape"]), np.dtype(f["dtype"]), scale, zero_point, f["axis"])
