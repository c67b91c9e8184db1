"""Fuzzes what reads samples: .npz and .npy files.

    python tests/bench/fuzz_npz.py [--seconds 60] [--seed 0]

A file is written from parts (arrays with the words of their headers, entries of the archive, its directory), several of
which are changed so that they still fit together or do not; of some the bytes are changed as well.
"""

from __future__ import annotations

import random
import struct
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import EDGES, Fuzzer, changed_bytes, chosen, main

from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess

DIGITS = Path(__file__).resolve().parents[2] / "samples" / "digits" / "digits.onnx"
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-npz-"))
DTYPES = (
    "'<f4'", "'<f8'", "'>f4'", "'<f2'", "'|u1'", "'|b1'", "'<i8'", "'<c8'", "'|O'", "'<U5'", "'|S3'", "'|V8'",
    "'<M8[s]'",
    "'<m8'", "[('a', '<f4')]", "[('a', '<f4', (2, 2))]", "'x'", "''", "None", "4", "('<f4', (3,))", "'<f4,<i4'",
    "'|S0'", "'<U0'",
    "'|V0'", "{'names': ['a'], 'formats': ['f4']}", "'<f16'", "'(1000000,)f4'", "'|S2147483647'", "'<U536870911'",
)  # fmt: skip
SHAPES = (
    "()", "(0,)", "(1,)", "(4, 1, 8, 8)", "(4, 64)", "(4, 8, 8, 1)", "(2147483648, 1, 8, 8)", "(-1, 64)",
    "(4, -64)", "(True, 64)",
    "(4.0, 64)", "('4', 64)", "(10**30,)", "(4, 0)", "(0, 1, 8, 8)", "(18446744073709551616,)",
    "(9223372036854775807, 2)", "4", "[4]",
    "(1,) * 40",
    "(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)",
)  # fmt: skip
NAMES = (
    "x",
    "y",
    "input",
    "label",
    "labels",
    "",
    "x.npy",
    "../x",
    "/x",
    "\u202ex",
    "x\0",
    "a" * 300,
    "allow_pickle",
    "file",
)


@dataclass
class Array:
    """A .npy file in parts."""

    name: str
    dtype: str = "'<f4'"
    shape: str = "(4, 1, 8, 8)"
    order: str = "False"
    content: bytes = b""
    version: bytes = b"\1\0"
    magic: bytes = b"\x93NUMPY"
    extra: str = ""
    length: int | None = None  # of the header, as it says
    entry: dict[str, int] = field(default_factory=dict)  # fields of the archive's entry that lie

    def encoded(self) -> bytes:
        text = f"{{'descr': {self.dtype}, 'fortran_order': {self.order}, 'shape': {self.shape}, {self.extra}}}"
        header = (text + " " * (-(len(text) + 11) % 64) + "\n").encode("latin1", "replace")
        wide = self.version[:1] != b"\1"
        size = len(header) if self.length is None else self.length
        said = struct.pack("<I", size % 2**32) if wide else struct.pack("<H", size % 65_536)
        return self.magic + self.version + said + header + self.content


def archive(arrays: list[Array], rng: random.Random, end: dict[str, int]) -> bytes:
    """A zip file of the arrays, which says what `entry` and `end` say."""
    data, directory = bytearray(), bytearray()
    for array in arrays:
        content, name = array.encoded(), (array.name + ".npy").encode("utf-8", "replace")
        method = array.entry.get("method", 8 if rng.random() < 0.5 else 0)
        stored = content
        if method == 8:
            packer = zlib.compressobj(1, zlib.DEFLATED, -15)
            stored = packer.compress(content) + packer.flush()
        lies = array.entry
        crc, size, plain = (
            lies.get("crc", zlib.crc32(content)),
            lies.get("size", len(stored)),
            lies.get("plain", len(content)),
        )
        fields = (
            lies.get("version", 20),
            lies.get("flags", 0x800),
            method,
            0,
            0x21,
            crc % 2**32,
            size % 2**32,
            plain % 2**32,
        )
        fields = tuple(v % (65_536 if i < 5 else 2**32) for i, v in enumerate(fields))
        at = len(data)
        data += b"PK\3\4" + struct.pack("<5H3I2H", *fields, len(name), 0) + name + stored
        directory += b"PK\1\2" + struct.pack(
            "<H5H3I5H2I", 20, *fields, len(name), 0, 0, 0, 0, 0, lies.get("offset", at) % 2**32
        )
        directory += name
    count, start = end.get("count", len(arrays)) % 65_536, end.get("start", len(data)) % 2**32
    last = struct.pack("<4H2IH", 0, 0, count, count, end.get("size", len(directory)) % 2**32, start, 0)
    return bytes(data + directory) + b"PK\5\6" + last


def make(rng: random.Random, left_out: frozenset[int]) -> bytes:
    values = np.random.default_rng(rng.getrandbits(32)).normal(size=(4, 1, 8, 8)).astype(np.float32).tobytes()
    arrays = [Array("x", content=values), Array("y", "'<i8'", "(4,)", content=bytes(32))]
    single, broken, end = rng.random() < 0.3, rng.random() < 0.2, dict[str, int]()
    for source in chosen(rng, left_out, most=6):
        _change(source, source.choice(arrays), arrays, end)
    data = arrays[0].encoded() if single else archive(arrays, rng, end)
    return (b"1" if single else b"2") + (changed_bytes(rng, data, 3) if broken else data)


def _change(rng: random.Random, array: Array, arrays: list[Array], end: dict[str, int]) -> None:
    texts: dict[str, tuple[Any, ...]] = {
        "dtype": DTYPES, "shape": SHAPES, "order": ("True", "False", "None", "0", "'x'"), "name": NAMES,
        "extra": ("", "'a': 1", "'shape': (1,)", "(" * 200, "'" * 3, "1 + 1: 2", "\n"),
        "version": (b"\1\0", b"\2\0", b"\3\0", b"\0\0", b"\xff\xff"), "magic": (b"\x93NUMPY", b"", b"\x93NUMPZ", b"PK"),
        "length": (None, 0, 1, 9, 65_535, 2**31, 2**32 - 1), "content": (b"", bytes(8), bytes(16_384), b"\xff" * 1024),
    }  # fmt: skip
    kind = rng.randrange(8)
    if kind < 5:
        what = rng.choice(list(texts))
        setattr(array, what, rng.choice(texts[what]))
        if what in ("dtype", "shape") and rng.random() < 0.3:  # content that fits what it may have
            array.content = array.content * rng.choice((0, 1, 2, 8))
    elif kind == 5:
        what = rng.choice(("crc", "size", "plain", "method", "flags", "version", "offset"))
        array.entry[what] = rng.choice((*EDGES, 8, 12, 14, 93, 99))
    elif kind == 6:
        end[rng.choice(("count", "start", "size"))] = rng.choice(EDGES)
    else:
        arrays.append(Array(**{**vars(array), "name": rng.choice(NAMES), "entry": dict(array.entry)}))


@cache
def inputs() -> Any:
    return load(DIGITS).model.graph.inputs


def read(data: bytes) -> str:
    file = FOLDER / ("samples.npy" if data[:1] == b"1" else "samples.npz")
    file.write_bytes(data[1:])
    found = load_data(str(file), inputs(), Preprocess()).head(2)
    for _ in found.batches(2):
        pass
    return f"{file.suffix}: read"


FUZZER = Fuzzer("npz", make, read, (InputError,), ".bin")

if __name__ == "__main__":
    sys.exit(main(FUZZER))
