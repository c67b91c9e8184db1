"""Small unsigned integers in 1 to 8 bits each, lowest bit first, without gaps between elements or rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import Buffer, Codec, Encoded, register, symbols
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import integer, member

CHUNK = 1 << 16  # elements unpacked at a time (8 bytes of scratch each); a multiple of 8, so whole bytes


@register
class Bitpacked(Codec):
    """1-byte elements; as few bits as the largest needs. Element i starts at bit i * bits."""

    name = "bitpacked"
    order = 20
    of_indices = True

    def encode(self, array: np.ndarray) -> Encoded | None:
        """Each element as so many bits as the largest needs, lowest first."""
        values = symbols(array)
        if values is None:
            return None
        bits = max(1, int(values.max(initial=0)).bit_length())
        data = bytearray()
        for start in range(0, values.size, CHUNK):
            column = values[start : start + CHUNK, None]
            rows = np.unpackbits(column, axis=1, count=bits, bitorder="little")
            data += np.packbits(rows, bitorder="little").tobytes()
        return Encoded(self.name, {"bits": bits}, bytes(data))

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """The elements of exactly so many bits."""
        bits = member(params, "bits", integer, 1, 8)
        values = symbols(out)
        if values is None:
            raise PackError(f"bitpacked: holds elements of 1 byte, not {out.dtype}")
        if len(data) != (expected := (values.size * bits + 7) // 8):
            raise PackError(f"bitpacked: expected {expected} bytes, found {len(data)}")
        packed = np.frombuffer(data, np.uint8)
        for start in range(0, values.size, CHUNK):
            count = min(CHUNK, values.size - start)
            first = start * bits // 8
            rows = np.unpackbits(packed[first:], count=count * bits, bitorder="little").reshape(count, bits)
            values[start : start + count] = np.packbits(rows, axis=1, bitorder="little")[:, 0]
        return out
