"""Fixed-point arithmetic of int8 inference, bit for bit as LiteRT's reference kernels do it.

A real factor becomes multiplier * 2**(shift - 31); an accumulator is scaled by it with one rounding, half up
(TFLite: quantization_util.cc QuantizeMultiplier, common.cc MultiplyByQuantizedMultiplier, single rounding).
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numba import njit

from edgecompress_runtime.plan import Tensor

i32, i64, f32 = np.int32, np.int64, np.float32

INT8_MIN, INT8_MAX = -128, 127
FLOAT_MAX = float(np.finfo(np.float32).max)
# schema.fbs ActivationFunctionType -> real bounds
ACTIVATION_BOUNDS: dict[int, tuple[float | None, float | None]] = {
    0: (None, None),
    1: (0.0, None),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}


# ---- on the host, when a layer is prepared ----


def quantize_multiplier(real: float) -> tuple[int, int]:
    """real -> (multiplier, shift): real = multiplier * 2**(shift - 31), 2**30 <= |multiplier| < 2**31.

    Below 2**-31 it becomes (0, 0); above 2**30 it saturates. Source: TFLite QuantizeMultiplier.
    """
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = int(math.copysign(math.floor(abs(fraction) * 2.0**31 + 0.5), real))
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        return 2**31 - 1, 30
    return multiplier, shift


def quantize_multipliers(reals: Iterable[float]) -> tuple[np.ndarray, np.ndarray]:
    """float64 [n] -> int32 multipliers [n] and int32 shifts [n]."""
    pairs = np.array([quantize_multiplier(float(real)) for real in reals], np.int64).reshape(-1, 2)
    return pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.int32)


def round_half_away(x: np.ndarray | float) -> np.ndarray:
    """C's round(): to nearest, halves away from zero. Exact: x - trunc(x) is."""
    x = np.asarray(x)
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.sign(x), whole)


def activation_range(options: Mapping[str, Any], y: Tensor) -> tuple[int, int]:
    """int8 bounds of a fused activation (kernel_util.cc CalculateActivationRangeQuantized)."""
    low, high = ACTIVATION_BOUNDS[options.get("fusedActivationFunction") or 0]
    return stored_bound(low, y, INT8_MIN), stored_bound(high, y, INT8_MAX)


def stored_bound(real: float | None, y: Tensor, limit: int) -> int:
    """A real bound on y's grid, within int8; `limit` when there is no bound."""
    if real is None:
        return limit
    stored = y.zero + int(round_half_away(f32(real) / f32(y.scale[0])))
    return max(limit, stored) if limit < 0 else min(limit, stored)


def float_activation_range(options: Mapping[str, Any]) -> tuple[float, float]:
    low, high = ACTIVATION_BOUNDS[options.get("fusedActivationFunction") or 0]
    return -FLOAT_MAX if low is None else low, FLOAT_MAX if high is None else high


def as_float(tensor: Tensor) -> Tensor | np.ndarray:
    """A float layer's operand: quantised or float16 constants are expanded once, here."""
    if tensor.data is None or tensor.dtype == np.float32:
        return tensor
    return dequantized(tensor).reshape(-1)


def dequantized(tensor: Tensor) -> np.ndarray:
    """float32 values of a constant."""
    assert tensor.data is not None
    if not tensor.scale.size:
        return np.ascontiguousarray(tensor.data, np.float32)
    shape = [1] * len(tensor.shape)
    if tensor.scale.size > 1:
        shape[tensor.axis] = -1
    centred = tensor.data.astype(np.int32) - tensor.zero_point.reshape(shape)
    return np.ascontiguousarray(centred.astype(np.float32) * tensor.scale.reshape(shape), np.float32)


# ---- inside the kernels ----


@njit(inline="always")
def requantize(acc, multiplier, shift):
    """int32 acc * multiplier * 2**(shift - 31), rounded half up, as int32."""
    return i32((i64(acc) * i64(multiplier) + (i64(1) << i64(30 - shift))) >> i64(31 - shift))


@njit(inline="always")
def clamp(value, low, high):
    return min(max(value, low), high)
