"""The array's own little-endian bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import Buffer, Codec, Encoded, register
from edgecompress_runtime.pack.errors import PackError


@register
class Raw(Codec):
    """Any array."""

    name = "raw"
    order = 10

    def encode(self, array: np.ndarray) -> Encoded:
        """The elements' own bytes."""
        return Encoded(self.name, {}, array.astype(array.dtype.newbyteorder("<")).tobytes())

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """The bytes as elements."""
        if len(data) != out.nbytes:
            raise PackError(f"raw: expected {out.nbytes} bytes, found {len(data)}")
        out[...] = np.frombuffer(data, out.dtype.newbyteorder("<")).reshape(out.shape)
        return out
