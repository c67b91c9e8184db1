"""What a codec is, and how one is entered: by `@register`, in a file of its own in `codecs/`."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, TypeVar

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


class Codec(ABC):
    """Lossless: `decode(encoded.data, encoded.params, np.empty_like(array))` equals `array` bit for bit.

    name: what a pack calls the codec. order: of encodings of one size that of the lowest order is taken, and a codec is
    built on those of lower orders. of_indices: true for a codec that can hold 1-byte elements and no others. The
    indices of `codebook` and the gaps of `sparse` are such elements, and these codecs alone are tried for them.
    slow: empty, or what it gains and costs, as RECIPE.md says it of "rans"; such a codec is tried only where it is
    asked for.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    of_indices: ClassVar[bool] = False
    slow: ClassVar[str] = ""

    def __init__(self, inner: Iterable[Codec] = ()) -> None:
        """`inner`: the codecs that this one may be built on, those of lower orders."""
        self.inner = {codec.name: codec for codec in inner}
        self.index_codecs = {name: codec for name, codec in self.inner.items() if codec.of_indices}

    @abstractmethod
    def encode(self, array: np.ndarray) -> Encoded | None:
        """None when this codec can't hold such an array (its docstring says which it can)."""

    @abstractmethod
    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """Fills and returns `out`, C-contiguous, whose shape and dtype come from the tensor.

        `data` and `params` may be anything: raises PackError unless they describe exactly `out.size`
        elements and every byte of `data` is used; never reads or writes out of bounds.
        """


C = TypeVar("C", bound=Codec)
REGISTERED: dict[str, type[Codec]] = {}  # complete once `codecs` is imported


def register(codec: type[C]) -> type[C]:
    """Enter a codec under its name. ValueError for a name that is taken."""
    if codec.name in REGISTERED:
        raise ValueError(f"two codecs are called {codec.name}")
    REGISTERED[codec.name] = codec
    return codec


def symbols(array: np.ndarray) -> np.ndarray | None:
    """An array with 1-byte elements as uint8 [n] (int8 by its bit pattern), or None for wider elements."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.itemsize == 1 else None


def smallest(array: np.ndarray, codecs: dict[str, Codec]) -> Encoded | None:
    """The encoding with the fewest bytes (the first of equals), or None when no codec can hold the array."""
    found = [encoded for codec in codecs.values() if (encoded := codec.encode(array)) is not None]
    return min(found, key=lambda encoded: encoded.size, default=None)
