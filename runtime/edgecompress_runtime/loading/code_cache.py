"""A model as machine code, and its place on disk.

The file's name is the digest of all that the code depends on: the pack, the CPU's variant, this package's sources,
LLVM's version. The file starts with an authentication code of its name and contents under a key of this user's: one
that is damaged, that is another model's, or that somebody else made, is compiled again. The folder is this user's
alone; where there is no such folder, nothing is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from edgecompress_runtime import private_folder
from edgecompress_runtime.plan import Tensor

DIGEST = 32  # bytes, of an authentication code (HMAC-SHA256)
KEY = 32  # bytes
KEPT = 64  # files; the ones not read for longest go


@dataclass(frozen=True, eq=False)
class Artifact:
    """code: an object file. arena: bytes that the code works in. inputs, outputs: without data. threads: that it is
    for. ordinary: see Model.ordinary_layers."""

    code: bytes
    arena: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    threads: int = 1
    ordinary: tuple[str, ...] = ()


def place(pack: bytes, variant: str, threads: int = 1) -> Path | None:
    """Where the code of a pack lies, or will lie; None where no folder is this user's alone."""
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
    try:
        return private_folder.of_code("models") / f"{digest[:32]}.native"
    except private_folder.NotPrivateError:
        return None


def read(path: Path) -> Artifact | None:
    """None where there is none, or one that was not written for this place with this user's key."""
    try:
        key, data = _key(path.parent), path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    if not hmac.compare_digest(data[:DIGEST], _code(key, path, memoryview(data)[DIGEST:])):
        return None
    end = data.index(b"\n", DIGEST)
    fields, code = json.loads(data[DIGEST:end]), data[end + 1 :]
    inputs, outputs = (tuple(_tensor(t) for t in fields[role]) for role in ("inputs", "outputs"))
    return Artifact(code, fields["arena"], inputs, outputs, fields["threads"], tuple(fields["ordinary"]))


def write(path: Path, artifact: Artifact) -> None:
    """All or nothing; a folder that can't be written to is no error."""
    fields = {"arena": artifact.arena, "threads": artifact.threads, "ordinary": artifact.ordinary} | {
        role: [_fields(t) for t in tensors]
        for role, tensors in (("inputs", artifact.inputs), ("outputs", artifact.outputs))
    }
    header = json.dumps(fields).encode() + b"\n"
    with suppress(OSError):
        _put(path, _code(_key(path.parent), path, header, artifact.code), header, artifact.code)
        for old in sorted(path.parent.glob("*.native"), key=lambda p: -p.stat().st_mtime)[KEPT:]:
            old.unlink()


def _code(key: bytes, path: Path, *parts: bytes | memoryview) -> bytes:
    """The authentication code of a file: it holds for its name, and so for its pack."""
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
