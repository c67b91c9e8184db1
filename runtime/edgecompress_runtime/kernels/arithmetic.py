"""Fixed-point arithmetic of int8 inference, bit for bit as TensorFlow Lite Micro does it.

A real factor becomes multiplier * 2**(shift - 31) (TFLite quantization_util.cc, QuantizeMultiplier). An accumulator is
scaled by it with two roundings, as gemmlowp does (measured on TFLM for every operator; LiteRT 2.3's reference kernels
differ in FULLY_CONNECTED alone, which they round once, in float64).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.options import Activated
from edgecompress_runtime.plan import Tensor

i32, i64, f32 = np.int32, np.int64, np.float32

# In kernels and their helpers, whose types are Numba's: a flat array, or on a device the address of its first element;
# a number of 32 bits, a truth value, or of arithmetic in between one of 64; a tuple of numbers, arrays or tuples.
Array = Any
Number = Any
Values = Any

INT8_MIN, INT8_MAX = -128, 127
SATURATES = 512.0
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


def saturating_multiplier(real: float) -> tuple[int, int]:
    """`quantize_multiplier` of a factor of accumulators of up to 21 bits that become int8: from SATURATES on any but 0
    gives an end of int8, and a larger factor would shift them out of 32 bits, as it does in TFLM."""
    return quantize_multiplier(min(max(real, -SATURATES), SATURATES))


def scale_ratio(x: Tensor, y: Tensor) -> float:
    """s_x / s_y in float64, as TFLM has it; most of LiteRT's reference kernels divide in float32."""
    return float(x.scale[0]) / float(y.scale[0])


def product_ratio(a: Tensor, b: Tensor, y: Tensor) -> float:
    """s_a * s_b / s_y, likewise."""
    return float(a.scale[0]) * float(b.scale[0]) / float(y.scale[0])


def quantize_multipliers(reals: Iterable[float]) -> tuple[np.ndarray, np.ndarray]:
    """float64 [n] -> int32 multipliers [n] and int32 shifts [n]."""
    pairs = np.array([quantize_multiplier(float(real)) for real in reals], np.int64).reshape(-1, 2)
    return pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.int32)


def round_half_away(x: np.ndarray | np.floating | float) -> np.ndarray:
    """C's round(): to nearest, halves away from zero. Exact: x - trunc(x) is."""
    x = np.asarray(x)
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.sign(x), whole)


def divided_by_power_of_two(x: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
    """`divide_by_power_of_two` of int64 arrays."""
    mask = (np.int64(1) << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def requantized(acc: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """`requantize` of an integer array, on the host: int64."""
    high = ((np.asarray(acc, np.int64) << np.maximum(shift, 0)) * multiplier + (1 << 30)) >> 31
    return divided_by_power_of_two(high, np.maximum(np.negative(shift), 0))


def activation_range(options: Activated, y: Tensor) -> tuple[int, int]:
    """Stored bounds of a fused activation (kernel_util.cc CalculateActivationRangeQuantized)."""
    low, high = ACTIVATION_BOUNDS[options.fused_activation_function]
    lowest, highest = stored_ends(y)
    return stored_bound(low, y, lowest), stored_bound(high, y, highest)


def stored_ends(y: Tensor) -> tuple[int, int]:
    """The lowest and highest number that an int8 or int16 tensor holds."""
    return int(np.iinfo(y.dtype).min), int(np.iinfo(y.dtype).max)


def stored_bound(real: float | None, y: Tensor, limit: int) -> int:
    """A real bound on y's grid, within its type; `limit` when there is no bound."""
    if real is None:
        return limit
    stored = y.zero + int(round_half_away(f32(real) / f32(y.scale[0])))
    return max(limit, stored) if limit < 0 else min(limit, stored)


def float_activation_range(options: Activated) -> tuple[float, float]:
    """float32 bounds of a fused activation."""
    low, high = ACTIVATION_BOUNDS[options.fused_activation_function]
    return -FLOAT_MAX if low is None else low, FLOAT_MAX if high is None else high


def as_float(tensor: Tensor) -> Tensor | np.ndarray:
    """A float layer's operand: quantized or float16 constants are expanded once, here.

    Raises UnsupportedOperatorError for a computed one that is not float32.
    """
    if tensor.dtype == np.float32:
        return tensor
    if tensor.data is None:
        raise UnsupportedOperatorError(
            f"tensor {tensor.name!r} is {tensor.dtype}: this operator has only a float32 kernel"
        )
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
def high_product(a: Number, b: Number) -> Number:
    """a * b / 2**31 to nearest, halves up; saturates at -1 * -1 (gemmlowp SaturatingRoundingDoublingHighMul)."""
    return i32(min((i64(a) * i64(b) + i64(1 << 30)) >> i64(31), i64(2**31 - 1)))


@njit(inline="always")
def divide_by_power_of_two(x: Number, exponent: Number) -> Number:
    """x / 2**exponent to nearest, halves away from zero (gemmlowp RoundingDivideByPOT)."""
    mask = i32((i64(1) << i64(exponent)) - i64(1))
    threshold = i32(i32(mask >> i32(1)) + i32(x < 0))
    return i32(i32(x >> i32(exponent)) + i32(i32(x & mask) > threshold))


@njit(inline="always")
def requantize(acc: Number, multiplier: Number, shift: Number) -> Number:
    """int32 acc * multiplier * 2**(shift - 31), rounded twice (common.cc MultiplyByQuantizedMultiplier)."""
    up, down = max(i32(shift), i32(0)), max(i32(-shift), i32(0))
    return divide_by_power_of_two(high_product(i32(acc << up), multiplier), down)


@njit(inline="always")
def clamp(value: Number, low: Number, high: Number) -> Number:
    """The nearest number from `low` to `high`."""
    return min(max(value, low), high)
