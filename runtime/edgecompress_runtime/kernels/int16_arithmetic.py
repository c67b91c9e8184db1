"""Arithmetic of layers with int16 activations: TFLite's 16x8 scheme, where all zero points are 0.

Sums of products have 64 bits. They are scaled by a multiplier of 16 bits, with one rounding (TFLite common.cc,
MultiplyByQuantizedMultiplier of int64), in TensorFlow Lite Micro in FULLY_CONNECTED too; LiteRT has float64 there.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numba import njit

from edgecompress_runtime.kernels.arithmetic import Number, i32, i64, quantize_multipliers

INT16_MIN, INT16_MAX = -32768, 32767
LARGEST_SHIFT = 7  # a factor below 2**7, as TFLite asserts: what is scaled has 48 bits, and what comes out 32


def wide_multipliers(reals: Iterable[float]) -> tuple[np.ndarray, np.ndarray]:
    """float64 [n] -> int32 multipliers of 15 bits [n] and int32 right shifts [n], for `requantize_wide`.

    Raises OverflowError for a factor of 2**7 or more, which TFLite does not scale sums by.
    """
    multipliers, shifts = quantize_multipliers(reals)
    if (shifts > LARGEST_SHIFT).any():
        raise OverflowError("a layer's output has too small a scale for int16")
    reduced = np.where(multipliers < 0x7FFF0000, (multipliers.astype(np.int64) + (1 << 15)) >> 16, 0x7FFF)
    return reduced.astype(np.int32), (15 - shifts).astype(np.int32)


@njit(inline="always")
def requantize_wide(acc: Number, multiplier: Number, shift: Number) -> Number:
    """int64 acc * multiplier / 2**shift to nearest, halves up, as int32."""
    return i32((acc * i64(multiplier) + (i64(1) << i64(shift - i32(1)))) >> i64(shift))
