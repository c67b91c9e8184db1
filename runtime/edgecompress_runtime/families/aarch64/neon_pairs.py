"""ADD, SUB and MUL with NEON, 16 elements at a time."""

from __future__ import annotations

from edgecompress_runtime.families.aarch64 import neon
from edgecompress_runtime.families.shared.vector_pairs import vector_pairs


class _Neon:
    """See VectorUnit."""

    vectors = 4
    high_product = staticmethod(neon.high_product)
    shifted = staticmethod(neon.shifted)
    narrowed = staticmethod(neon.narrowed)


PAIRS = vector_pairs(("neon_sums", "neon_products"), __name__, _Neon())
neon_sums, neon_products = PAIRS.sums, PAIRS.products
