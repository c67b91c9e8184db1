"""Few distinct values: a list of them, and for each element an index in a codec of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import Buffer, Codec, Encoded, register, smallest
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import integer, member, number, record, sequence, shortest, text

LARGEST = 256  # centroids: an index is one byte
SAMPLE = 4096  # elements looked at before sorting all of them


@register
class Codebook(Codec):
    """Arrays of 1 to 256 distinct finite values; a codec of indices codes which of them each element is."""

    name = "codebook"
    order = 60

    def encode(self, array: np.ndarray) -> Encoded | None:
        """The distinct values in order, and each element's index."""
        bits = np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}")  # -0.0 is not 0.0 here
        if not bits.size or np.unique(bits[:SAMPLE]).size > LARGEST:
            return None
        patterns = np.unique(bits)
        centroids = patterns.view(array.dtype)
        if patterns.size > LARGEST or (array.dtype.kind == "f" and not np.isfinite(centroids).all()):
            return None
        order = np.argsort(centroids, kind="stable")
        rank = np.empty(order.size, np.uint8)
        rank[order] = np.arange(order.size)
        encoded = smallest(rank[np.searchsorted(patterns, bits)], self.index_codecs)
        if encoded is None:
            return None
        listed = [x.item() if array.dtype.kind != "f" else shortest(x) for x in centroids[order]]
        params = {"centroids": listed, "indices": encoded.reference()}
        return Encoded(self.name, params, encoded.data)

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """Each index's value."""
        centroids = _centroids(params, out.dtype)
        inner = member(params, "indices", record)
        codec = self.index_codecs.get(name := member(inner, "codec", text))
        if codec is None:
            raise PackError(f"codebook: no index codec {name!r:.40}; known: {', '.join(self.index_codecs)}")
        indices = codec.decode(data, member(inner, "params", record), np.empty(out.size, np.uint8))
        if indices.size and (found := int(indices.max())) >= centroids.size:
            raise PackError(f"codebook: index {found} among {centroids.size} centroids")
        out[...] = centroids[indices].reshape(out.shape)
        return out


def _centroids(params: dict[str, Any], dtype: np.dtype) -> np.ndarray:
    """JSON numbers -> [at most 256] of `dtype`."""
    if dtype.kind == "f":
        values = np.array(member(params, "centroids", sequence, LARGEST, number), np.float64)
        with np.errstate(over="ignore"):
            rounded = values.astype(dtype)  # the shortest decimal of the largest float32 is above it
        if not np.isfinite(rounded).all():
            raise PackError(f"codebook: a centroid is too large for {dtype}")
        return rounded
    limits = np.iinfo(dtype)
    return np.array(member(params, "centroids", sequence, LARGEST, integer, int(limits.min), int(limits.max)), dtype)
