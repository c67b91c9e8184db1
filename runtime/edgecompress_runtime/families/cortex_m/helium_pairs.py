"""ADD, SUB and MUL with Helium, four elements at a time."""

from __future__ import annotations

from llvmlite import ir

from edgecompress_runtime.families.cortex_m import helium
from edgecompress_runtime.families.shared.vector_pairs import Values, vector_pairs
from edgecompress_runtime.families.shared.vectors import FOUR_BYTES, clamped


class _Helium:
    """See VectorUnit."""

    vectors = 1
    high_product = staticmethod(helium.high_product)
    shifted = staticmethod(helium.shifted)

    @staticmethod
    def narrowed(b: ir.IRBuilder, values: Values, bounds: Values) -> ir.Value:
        return b.trunc(clamped(b, values[0], bounds), FOUR_BYTES)


PAIRS = vector_pairs(("helium_sums", "helium_products"), __name__, _Helium())
helium_sums, helium_products = PAIRS.sums, PAIRS.products
