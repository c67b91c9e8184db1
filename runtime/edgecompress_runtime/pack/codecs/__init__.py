"""How an array becomes a blob and back: one table of codecs, and the choice among them by actual size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgecompress_runtime.pack.codecs.bitpacked import Bitpacked
from edgecompress_runtime.pack.codecs.codebook import Codebook
from edgecompress_runtime.pack.codecs.golomb import Golomb
from edgecompress_runtime.pack.codecs.huffman import Huffman
from edgecompress_runtime.pack.codecs.protocol import Buffer, Codec, Encoded
from edgecompress_runtime.pack.codecs.rans import Rans
from edgecompress_runtime.pack.codecs.raw import Raw
from edgecompress_runtime.pack.codecs.sparse import Sparse
from edgecompress_runtime.pack.errors import PackError

__all__ = ["CODECS", "FAST", "Codec", "Encoded", "codec_table", "decode", "encode_smallest"]

NAMES = ("raw", "bitpacked", "huffman", "rans", "golomb", "codebook", "sparse")
FAST = tuple(name for name in NAMES if name != "rans")  # rANS: about 1 % smaller, several times slower
EXPANSION = 4096  # elements a byte of a blob may stand for, so that a small file can't ask for gigabytes


def codec_table(allowed: Iterable[str] = NAMES) -> dict[str, Codec]:
    """The codecs with these names, each building on allowed ones only. PackError for an unknown name."""
    allowed = set(allowed)
    if unknown := allowed - set(NAMES):
        raise PackError(f"no codec is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    index: dict[str, Codec] = {codec.name: codec for codec in (Bitpacked(), Huffman(), Rans())}
    index = {name: codec for name, codec in index.items() if name in allowed}
    codebook = Codebook(index)
    values = {"raw": Raw(), **index, "golomb": Golomb(), "codebook": codebook}
    table = values | {"sparse": Sparse(index, {name: c for name, c in values.items() if name in allowed})}
    return {name: codec for name, codec in table.items() if name in allowed}


CODECS = codec_table()


def encode_smallest(array: np.ndarray, allowed: Iterable[str] = FAST) -> Encoded:
    """(codec name, params, bytes) of the smallest encoding; parameters count as they compress in the header.

    `array`: any shape, dtype int8..int64, uint8, bool, float16 or float32. `allowed`: codec names; raw is
    always among them.
    """
    codecs = codec_table({"raw", *allowed})
    coded = array.view(np.uint8) if array.dtype == np.bool_ else array
    found = [encoded for codec in codecs.values() if (encoded := codec.encode(coded)) is not None]
    return min((e for e in found if array.size <= _most_elements(e.data)), key=lambda encoded: encoded.size)


def decode(name: str, params: dict[str, Any], data: Buffer, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array [shape] of `dtype`. Raises PackError for whatever does not describe exactly that array."""
    codec = CODECS.get(name)
    if codec is None:
        raise PackError(f"no codec is called {name!r:.40}; known: {', '.join(CODECS)}")
    elements = 1
    for size in shape:
        elements *= size
    if elements > _most_elements(data):
        raise PackError(f"{elements} elements in {len(data)} bytes, at most {_most_elements(data)} are allowed")
    out = np.empty(shape, dtype)
    if dtype != np.bool_:
        return codec.decode(data, params, out)
    if codec.decode(data, params, out.view(np.uint8)).max(initial=0) > 1:
        raise PackError("a bool is neither 0 nor 1")
    return out


def _most_elements(data: Buffer) -> int:
    return EXPANSION * (len(data) + 1)
