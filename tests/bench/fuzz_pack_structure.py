"""Fuzzes what reads and runs `.pack` files, by the fields of the plan, several of them consistently.

    python tests/bench/fuzz_pack_structure.py [--seconds 60] [--seed 0]

Each input is one operator of the table of layer cases (tests/runtime/layer_cases.py), of which shapes, types, scales,
zero points, options, operands, kinds, constants and codecs are changed; checksums are right, and constants have the
size that their shapes say, or not. What is read is run by the reference kernels, on inputs of random bits. Every tensor
and table lies right in front of a page that may not be touched, and constants may not be written: a byte out of place
is a signal. One in COMPILED that ran is compiled as `load` does, and runs with its arena, inputs and outputs between
such pages and in the middle of bytes that have to stay; where all tensors are integers, outputs equal.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import random
import struct
import sys
import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import EDGES, Fuzzer, changed_bytes, chosen, main

from edgecompress_runtime import execute, load
from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.loading import code_cache, native
from edgecompress_runtime.pack import CODECS, PackError, read_pack, write_pack
from edgecompress_runtime.plan import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "runtime"))
import layer_cases
from packs import header_of, resigned

TABLES = (
    layer_cases.EXACT, layer_cases.REAL, layer_cases.ARITHMETIC, layer_cases.WIDE_ACTIVATIONS, layer_cases.WIDE_REAL,
)  # fmt: skip
COMPILED = 25
LINE, PAINT = 64, 0x5A  # bytes, of the alignment of what compiled code works in; around it
MOST = 1 << 18  # elements of a plan that is run
MOST_WORK = 1 << 24  # the largest two tensors' product: more is no fault, but slow
DTYPES = ("int8", "int16", "int32", "int64", "uint8", "float32", "float16", "float64", "bool", "x", "")
DIMENSIONS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 64, 255, 257, 1000, 65_536, 2**31 - 1, 2**31, 2**63 - 1, -1)
NUMBERS = (*EDGES, -1, -2, -3, -(2**31), -128, 127, 6, 9, 100)
REALS = (0.0, -0.0, 1e-45, 1e-38, 1e-30, 1e-10, 0.5, 1.0, 1e5, 1e20, 3e38, -1.0, float("inf"), float("nan"))


@dataclass
class Pack:
    """A file in parts. header: as JSON. blobs: as stored."""

    header: dict[str, Any]
    blobs: list[bytes]

    def encoded(self) -> bytes:
        plain = json.dumps(self.header).encode()
        packed = zlib.compress(plain)
        start = _first()[:12] + struct.pack("<3I", len(packed), len(plain), len(self.blobs)) + bytes(40)
        data = bytearray(start + b"".join(struct.pack("<2I", len(blob), 0) for blob in self.blobs) + packed)
        for blob in self.blobs:
            data += bytes(-len(data) % 64) + blob
        return resigned(data)


@cache
def _first() -> bytes:
    return write_pack(_plan(TABLES[0], next(iter(TABLES[0]))), "fuzz")


def _plan(table: dict[str, Callable[[layer_cases.Layers], None]], name: str) -> Any:
    made = layer_cases.Layers(0)
    table[name](made)
    return made.plan()


@cache
def seed(table: int, name: str, raw: bool) -> Pack:
    """A case of the table, its constants plain or coded."""

    def plain(index: int, tensor: Tensor) -> Any:
        return None if tensor.data is None else CODECS["raw"].encode(tensor.data)

    plan = _plan(TABLES[table], name)
    data = write_pack(plan, "fuzz", encode=plain) if raw else write_pack(plan, "fuzz")
    stored, _, count = struct.unpack_from("<III", data, 12)
    at, blobs = 64 + 8 * count + stored, []
    for i in range(count):
        at += -at % 64
        length = struct.unpack_from("<I", data, 64 + 8 * i)[0]
        blobs.append(data[at : at + length])
        at += length
    return Pack(header_of(data), blobs)


def make(rng: random.Random, left_out: frozenset[int]) -> bytes:
    table = rng.randrange(len(TABLES))
    pack = deepcopy(seed(table, rng.choice(list(TABLES[table])), rng.random() < 0.7))
    broken, fitting = rng.random() < 0.05, rng.random() < 0.8
    for source in chosen(rng, left_out, most=6):
        source.choice(CHANGES)(source, pack)
    if fitting:
        _fit(rng, pack)
    data = pack.encoded()
    changed = changed_bytes(rng, data, 2) if broken else data
    return resigned(changed) if len(changed) >= 64 else changed


def _tensor(rng: random.Random, pack: Pack) -> dict[str, Any]:
    return rng.choice(pack.header["tensors"])


def _dimension(rng: random.Random, pack: Pack) -> None:
    """One dimension, of one tensor or wherever it stands."""
    shape = _tensor(rng, pack)["shape"]
    if not shape:
        shape.append(rng.choice(DIMENSIONS))
        return
    at = rng.randrange(len(shape))
    old = shape[at]
    new = rng.choice((*DIMENSIONS, old + 1, old - 1, 2 * old, old // 2))
    if rng.random() < 0.5:
        shape[at] = new
        return
    for tensor in pack.header["tensors"]:
        tensor["shape"] = [new if d == old else d for d in tensor["shape"]]


def _rank(rng: random.Random, pack: Pack) -> None:
    shape = _tensor(rng, pack)["shape"]
    if shape and rng.random() < 0.5:
        del shape[rng.randrange(len(shape))]
    elif rng.random() < 0.5:
        rng.shuffle(shape)
    else:
        shape.insert(rng.randrange(len(shape) + 1), 1)


def _type(rng: random.Random, pack: Pack) -> None:
    """The type of one tensor or of all of its type, with its scales or without."""
    tensor, new = _tensor(rng, pack), rng.choice(DTYPES)
    alike = [t for t in pack.header["tensors"] if t["dtype"] == tensor["dtype"]] if rng.random() < 0.4 else [tensor]
    for each in alike:
        each["dtype"] = new
        if rng.random() < 0.4:
            each["scale"], each["zero_point"] = ([0.1], [0]) if not each["scale"] else ([], [])


def _scale(rng: random.Random, pack: Pack) -> None:
    tensors = pack.header["tensors"] if rng.random() < 0.2 else [_tensor(rng, pack)]
    factor, real = rng.choice((1e-30, 1e-3, 1e3, 1e10)), rng.choice(REALS)
    kind = rng.randrange(5)
    for tensor in tensors:
        scales, zeros = tensor["scale"], tensor["zero_point"]
        if kind == 0:
            tensor["scale"] = [s * factor for s in scales]
        elif kind == 1:
            tensor["scale"] = [real] * len(scales)
        elif kind == 2:
            tensor["zero_point"] = [rng.choice(NUMBERS)] * len(zeros)
        elif kind == 3:
            tensor["scale"] = scales[:1] * rng.choice((0, 1, 2, 9))
            tensor["zero_point"] = zeros[:1] * rng.choice((0, 1, 2, 9))
        else:
            tensor["axis"] = rng.choice((0, 1, 2, 3, -1, 9))


def _option(rng: random.Random, pack: Pack) -> None:
    options = rng.choice(pack.header["operators"])["options"]
    if not options:
        return
    key = rng.choice(list(options))
    value = options[key]
    if isinstance(value, bool):
        options[key] = not value
    elif isinstance(value, list):
        options[key] = [rng.choice(NUMBERS) if rng.random() < 0.5 else v for v in value]
    else:
        options[key] = rng.choice((*NUMBERS, *REALS, 0, 1, 2, 3, 4, value, None))


def _operands(rng: random.Random, pack: Pack) -> None:
    operator = rng.choice(pack.header["operators"])
    items = operator[rng.choice(("inputs", "outputs"))]
    count, kind = len(pack.header["tensors"]), rng.randrange(4)
    if kind == 0 and items:
        items[rng.randrange(len(items))] = rng.choice((*range(count), -1, count, 2**31))
    elif kind == 1:
        items.append(rng.randrange(count))
    elif kind == 2 and items:
        del items[rng.randrange(len(items))]
    else:
        rng.shuffle(items)


def _kind(rng: random.Random, pack: Pack) -> None:
    """Another operator, with its own options."""
    table = rng.randrange(len(TABLES))
    other = seed(table, rng.choice(list(TABLES[table])), True).header["operators"][0]
    operator = rng.choice(pack.header["operators"])
    operator["kind"] = other["kind"]
    if rng.random() < 0.9:
        operator["options"] = deepcopy(other["options"])


def _constant(rng: random.Random, pack: Pack) -> None:
    """The bytes of a constant: numbers of 32 bits where they may be indices, axes, shapes."""
    if not pack.blobs:
        return
    at = rng.randrange(len(pack.blobs))
    blob = bytearray(pack.blobs[at])
    if len(blob) % 4 == 0 and blob and rng.random() < 0.7:
        for _ in range(rng.randrange(1, 4)):
            place = 4 * rng.randrange(len(blob) // 4)
            struct.pack_into("<I", blob, place, rng.choice((*NUMBERS, rng.randrange(8))) % 2**32)
        pack.blobs[at] = bytes(blob)
    else:
        pack.blobs[at] = changed_bytes(rng, bytes(blob), rng.randrange(1, 4))


def _codec(rng: random.Random, pack: Pack) -> None:
    data = [t["data"] for t in pack.header["tensors"] if t["data"]]
    if not data:
        return
    coded = rng.choice(data)
    if coded["params"] and rng.random() < 0.7:
        key = rng.choice(list(coded["params"]))
        coded["params"][key] = rng.choice((*NUMBERS, None, [], "x"))
    else:
        coded[rng.choice(("blob", "codec"))] = rng.choice((*range(4), *CODECS))


def _ends(rng: random.Random, pack: Pack) -> None:
    side = pack.header[rng.choice(("inputs", "outputs"))]
    count = len(pack.header["tensors"])
    side[:] = [rng.choice((*range(count), -1, count)) if rng.random() < 0.5 else i for i in side]


CHANGES = (
    _dimension, _dimension, _dimension, _rank, _type, _type, _scale, _scale, _option, _option, _operands, _kind,
    _constant, _constant, _codec, _ends,
)  # fmt: skip
SIZES = {"int8": 1, "uint8": 1, "bool": 1, "int16": 2, "float16": 2, "int32": 4, "float32": 4, "int64": 8, "float64": 8}


def _fit(rng: random.Random, pack: Pack) -> None:
    """Plain constants as long as their shapes say, and a scale for each channel where there were several."""
    for tensor in pack.header["tensors"]:
        size = SIZES.get(tensor["dtype"], 1)
        for d in tensor["shape"]:
            size *= max(d, 0)
        data = tensor["data"]
        if data and data["codec"] == "raw" and data["blob"] in range(len(pack.blobs)) and size < 1 << 20:
            blob = pack.blobs[data["blob"]] or b"\0"
            pack.blobs[data["blob"]] = (blob * (size // len(blob) + 1))[:size]
        axis, scales = tensor["axis"], tensor["scale"]
        if len(scales) > 1 and axis in range(len(tensor["shape"])) and 0 < tensor["shape"][axis] < 5000:
            count = tensor["shape"][axis]
            tensor["scale"] = (scales * count)[:count]
            tensor["zero_point"] = (tensor["zero_point"] * count)[:count]


# ---- memory that ends where it should

_C = ctypes.CDLL(None, use_errno=True)
_C.mmap.restype = ctypes.c_void_p
_C.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_C.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_C.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE, NONE, READ = mmap.PAGESIZE, 0, 1


class Fences:
    """Arrays between two pages that may not be touched; the last byte of each lies right in front of the second."""

    def __init__(self) -> None:
        self._taken: list[tuple[int, int]] = []
        self._painted: list[np.ndarray] = []

    def copy(self, array: np.ndarray, *, constant: bool) -> np.ndarray:
        """A flat copy; a constant may only be read."""
        flat = np.ascontiguousarray(array).reshape(-1)
        inside = max(1, -(-flat.nbytes // PAGE)) * PAGE
        address = _C.mmap(None, inside + 2 * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        assert address not in (None, 2**64 - 1), "no memory"
        self._taken.append((address, inside + 2 * PAGE))
        start = address + PAGE + inside - flat.nbytes
        view = np.ctypeslib.as_array((ctypes.c_int8 * flat.nbytes).from_address(start)).view(flat.dtype)
        view[:] = flat
        _C.mprotect(address, PAGE, NONE)
        _C.mprotect(address + PAGE + inside, PAGE, NONE)
        if constant:
            _C.mprotect(address + PAGE, inside, READ)
        return view

    def lines(self, size: int) -> np.ndarray:
        """uint8 [size], zeros, at a multiple of LINE; what is left of its pages is painted."""
        inside = np.full(max(1, -(-size // PAGE)) * PAGE, PAINT, np.uint8)
        whole = self.copy(inside, constant=False)
        start = whole.size - -(-size // LINE) * LINE
        whole[start : start + size] = 0
        self._painted += [whole[:start], whole[start + size :]]
        return whole[start : start + size]

    def check_paint(self) -> None:
        """Raises AssertionError where painted bytes changed."""
        assert all((paint == PAINT).all() for paint in self._painted), "written out of place"

    def clear(self) -> None:
        self._painted.clear()
        for address, size in self._taken:
            _C.munmap(address, size)
        self._taken.clear()


FENCES = Fences()


def _storage(tensor: Tensor) -> np.ndarray:
    if tensor.data is not None:
        return FENCES.copy(np.asarray(tensor.data, tensor.dtype), constant=True)
    return FENCES.copy(np.zeros(tensor.size, tensor.dtype), constant=False)


class FencedExecutor(execute.Executor):
    """The reference kernels on fenced arrays, tables included."""

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, np.ndarray) and argument.size:
            argument = FENCES.copy(argument, constant=False)
        return super()._value(argument)


def read(data: bytes) -> str:
    plan = read_pack(data).plan()
    sizes = sorted(t.size for t in plan.tensors)
    if sum(sizes) > MOST or sizes[-1] * sizes[-2 if len(sizes) > 1 else -1] > MOST_WORK:
        return "read, large"
    execute._storage = _storage
    rng = np.random.default_rng(zlib.crc32(data))
    try:
        executor = FencedExecutor(plan)
        inputs = [plan.tensors[i] for i in plan.inputs]
        fed = [rng.integers(0, 2, t.shape).astype(bool) if t.dtype == bool else _bits(rng, t) for t in inputs]
        with np.errstate(all="ignore"):
            expected = executor(*fed)
        del executor
        if zlib.crc32(data[::-1]) % COMPILED:
            return "ran"
        run_compiled(data, fed, expected if all(t.dtype.kind in "ib" for t in plan.tensors) else None)
    finally:
        FENCES.clear()
    return "ran, compiled too"


def run_compiled(data: bytes, fed: list[np.ndarray], expected: list[np.ndarray] | None) -> None:
    """Raises AssertionError where a byte is out of place, or outputs are not as expected."""
    native._aligned = FENCES.lines
    code_cache.place = lambda *_: None  # which is kept nowhere
    model = load(data)
    found = model(*fed)
    FENCES.check_paint()
    if expected is not None:
        for ours, theirs in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
            assert np.array_equal(ours, theirs), "compiled outputs differ from the reference kernels'"


def _bits(rng: np.random.Generator, tensor: Tensor) -> np.ndarray:
    raw = np.frombuffer(rng.bytes(tensor.size * tensor.dtype.itemsize), tensor.dtype)
    small = raw if rng.random() < 0.5 or tensor.dtype.kind == "f" else raw % 8
    return np.asarray(small, tensor.dtype).reshape(tensor.shape)


FUZZER = Fuzzer("pack", make, read, (PackError, RuntimeModelError), ".pack")

if __name__ == "__main__":
    sys.exit(main(FUZZER))
