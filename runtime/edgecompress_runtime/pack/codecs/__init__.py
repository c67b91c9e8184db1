"""How an array becomes a blob and back: one codec a file, and the choice among them by actual size.

A codec is any file of this folder with a class marked `@register`; nothing lists them. All are imported here, so none
may load Numba before it encodes or decodes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import REGISTERED, Buffer, Codec, Encoded
from edgecompress_runtime.pack.errors import PackError

__all__ = ["CODECS", "FAST", "Codec", "Encoded", "codec_table", "decode", "encode_smallest"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

NAMES = tuple(sorted(REGISTERED, key=lambda name: (REGISTERED[name].order, name)))
FAST = tuple(name for name in NAMES if not REGISTERED[name].slow)
EXPANSION = 4096  # elements a byte of a blob may stand for, so that a small file can't ask for gigabytes


def codec_table(allowed: Iterable[str] = NAMES) -> dict[str, Codec]:
    """The codecs with these names, each building on allowed ones only. PackError for an unknown name."""
    allowed = set(allowed)
    if unknown := allowed - set(NAMES):
        raise PackError(f"no codec is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    table: dict[str, Codec] = {}
    for name in NAMES:
        if name in allowed:
            table[name] = REGISTERED[name](table.values())
    return table


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
