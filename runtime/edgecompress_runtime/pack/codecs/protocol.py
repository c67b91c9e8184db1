"""What a codec is: a name and two functions. CODECS (in `__init__`) maps names to them."""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple, Protocol

import numpy as np

Buffer = bytes | memoryview


class Encoded(NamedTuple):
    """codec: its name. params: JSON, what decoding needs besides the bytes. data: the blob (a view)."""

    codec: str
    params: dict[str, Any]
    data: Buffer

    @property
    def size(self) -> int:
        """Bytes in a file: the blob, and the parameters as they compress in the header."""
        return len(self.data) + len(zlib.compress(json.dumps(self.params, separators=(",", ":")).encode()))

    def reference(self) -> dict[str, Any]:
        """How a codec that is built on this one refers to it in its own parameters."""
        return {"codec": self.codec, "params": self.params}


class Codec(Protocol):
    """Lossless: `decode(encoded.data, encoded.params, np.empty_like(array))` equals `array` bit for bit."""

    @property
    def name(self) -> str:
        """What a pack calls the codec."""

    def encode(self, array: np.ndarray) -> Encoded | None:
        """None when this codec can't hold such an array (its docstring says which it can)."""

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """Fills and returns `out`, C-contiguous, whose shape and dtype come from the tensor.

        `data` and `params` may be anything: raises PackError unless they describe exactly `out.size`
        elements and every byte of `data` is used; never reads or writes out of bounds.
        """


def symbols(array: np.ndarray) -> np.ndarray | None:
    """An array with 1-byte elements as uint8 [n] (int8 by its bit pattern), or None for wider elements."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.itemsize == 1 else None


def smallest(array: np.ndarray, codecs: dict[str, Codec]) -> Encoded | None:
    """The encoding with the fewest bytes (the first of equals), or None when no codec can hold the array."""
    found = [encoded for codec in codecs.values() if (encoded := codec.encode(array)) is not None]
    return min(found, key=lambda encoded: encoded.size, default=None)
