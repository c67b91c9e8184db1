"""Mostly zeros: the gaps between stored elements, and these (Deep Compression, Han et al., ICLR 2016).

Gaps and values are each coded on their own, usually by Huffman. Positions run on from row to row, so
a decoder that keeps a position and two bit positions can stop after any row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import Buffer, Codec, Encoded, register, smallest
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import integer, member, record, text

SKIP = 255  # this gap means 255 zeros and nothing after them; a smaller one that many zeros and an element


@register
class Sparse(Codec):
    """Any array. Zero is the pattern of all zero bits, so -0.0 is stored.

    A codec of indices codes the gaps, uint8, and any inner codec the stored elements.
    """

    name = "sparse"
    order = 70

    def encode(self, array: np.ndarray) -> Encoded | None:
        """The runs of zeros, and what lies between them."""
        flat = np.ascontiguousarray(array).reshape(-1)
        positions = np.flatnonzero(flat.view(f"u{array.itemsize}"))
        distances = np.diff(positions, prepend=-1) - 1
        skips = distances // SKIP
        gaps = np.full(positions.size + int(skips.sum()), SKIP, np.uint8)
        gaps[np.cumsum(skips + 1) - 1] = distances - SKIP * skips
        coded_gaps, coded_values = smallest(gaps, self.index_codecs), smallest(flat[positions], self.inner)
        if coded_gaps is None or coded_values is None:
            return None
        where = coded_gaps.reference() | {"count": gaps.size, "bytes": len(coded_gaps.data)}
        params = {"gaps": where, "values": coded_values.reference()}
        return Encoded(self.name, params, bytes(coded_gaps.data) + bytes(coded_values.data))

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """Zeros with the stored elements between them."""
        where, what = member(params, "gaps", record), member(params, "values", record)
        split = member(where, "bytes", integer, 0, len(data))
        count = member(where, "count", integer, 0, out.size)  # every gap passes at least one element
        gaps = _decode(data[:split], where, self.index_codecs, np.empty(count, np.uint8))
        stored = gaps != SKIP
        ends = np.cumsum(gaps + stored.astype(np.int64))  # how many elements are behind after each gap
        if count and ends[-1] > out.size:
            raise PackError(f"sparse: gaps pass {ends[-1]} elements of {out.size}")
        positions = ends[stored] - 1
        values = _decode(data[split:], what, self.inner, np.empty(positions.size, out.dtype))
        flat = out.reshape(-1)
        flat[...] = 0
        flat[positions] = values
        return out


def _decode(data: Buffer, reference: dict[str, Any], codecs: dict[str, Codec], out: np.ndarray) -> np.ndarray:
    codec = codecs.get(name := member(reference, "codec", text))
    if codec is None:
        raise PackError(f"sparse: no codec {name!r:.40}; known: {', '.join(codecs)}")
    return codec.decode(data, member(reference, "params", record), out)
