"""A model as machine code, and its place on disk.

The file's name is the digest of all that the code depends on: the pack, the CPU's variant, this package's sources,
LLVM's version. What was not written for this name by this user is compiled again (kept_files.py). The folder is this
user's alone; where there is no such folder, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from edgecompress_runtime.plan import KeptState, Tensor
from edgecompress_runtime.storage import kept_files, private_folder

KEPT = 64  # files


@dataclass(frozen=True, eq=False)
class Artifact:
    """code: an object file. arena: bytes that the code works in. inputs, outputs: without data. threads: that it is
    for. ordinary: see Model.ordinary_layers. states: what of the arena it keeps between calls."""

    code: bytes
    arena: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    threads: int = 1
    ordinary: tuple[str, ...] = ()
    states: tuple[KeptState, ...] = ()


def place(pack: bytes, variant: str, threads: int = 1) -> Path | None:
    """Where the code of a pack lies, or will lie; None where no folder is this user's alone."""
    cpu = llvm.get_host_cpu_name() if variant == "generic" else ""
    parts = (
        variant,
        str(threads),
        platform.machine(),
        cpu,
        llvmlite.__version__,
        kept_files.sources(),
        hashlib.sha256(pack).hexdigest(),
    )
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    try:
        return private_folder.of_code("models") / f"{digest[:32]}.native"
    except private_folder.NotPrivateError:
        return None


def read(path: Path) -> Artifact | None:
    """None where there is none, or one that was not written for this place with this user's key."""
    if (data := kept_files.read(path)) is None:
        return None
    header, _, code = data.partition(b"\n")
    fields = json.loads(header)
    inputs, outputs = (tuple(_tensor(t) for t in fields[role]) for role in ("inputs", "outputs"))
    states = tuple(KeptState(**state) for state in fields["states"])
    return Artifact(code, fields["arena"], inputs, outputs, fields["threads"], tuple(fields["ordinary"]), states)


def write(path: Path, artifact: Artifact) -> None:
    """All or nothing; a folder that can't be written to is no error."""
    states = [asdict(state) for state in artifact.states]
    fields = {"arena": artifact.arena, "threads": artifact.threads, "ordinary": artifact.ordinary, "states": states} | {
        role: [_fields(t) for t in tensors]
        for role, tensors in (("inputs", artifact.inputs), ("outputs", artifact.outputs))
    }
    kept_files.write(path, json.dumps(fields).encode() + b"\n", artifact.code, most=KEPT)


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
