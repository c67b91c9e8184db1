"""ADD and SUB with NEON, 16 elements at a time."""

from __future__ import annotations

from edgecompress_runtime.families.aarch64 import neon
from edgecompress_runtime.families.shared.vector_addition import addition


class _Neon:
    """See VectorUnit."""

    vectors = 4
    high_product = staticmethod(neon.high_product)
    shifted = staticmethod(neon.shifted)
    narrowed = staticmethod(neon.narrowed)


neon_add = addition("neon_add", __name__, _Neon())
