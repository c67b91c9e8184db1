"""LOGISTIC, TANH and SOFTMAX of int16 activations: tables with linear interpolation between their entries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Number,
    Values,
    clamp,
    f32,
    i32,
    i64,
    quantize_multiplier,
    requantize,
    round_half_away,
)
from edgecompress_runtime.kernels.fixed_point import leading_zeros
from edgecompress_runtime.kernels.int16_arithmetic import INT16_MAX, INT16_MIN
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares_int16
from edgecompress_runtime.options import Options, SoftmaxOptions
from edgecompress_runtime.plan import Tensor

# ---- LOGISTIC and TANH, which is 2 * sigmoid(2 * x) - 1 ----

# sigmoid(i / 24) of 16 bits, 256 entries (common.h, sigmoid_table_uint16); TFLite has these one above the nearest
ABOVE = (
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41, 43, 44, 45, 46, 49,
    50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
)  # fmt: skip
SIGMOID = np.rint(65536 / (1 + np.exp(-np.arange(256) / 24))).astype(np.int32)
SIGMOID[list(ABOVE)] += 1


def logistic_int16(x: Array, table: Array, y: Array, count: Number, scaling: Values) -> None:
    """scaling: multiplier and right shift that make the input's scale 1 / (3 * 4096) (integer_ops/logistic.h)."""
    multiplier, shift = scaling
    half = i32(i32(1 << shift) >> 1)
    for i in range(count):
        value = i32(i32(x[i] * multiplier + half) >> shift)
        size = abs(value)
        at = i32(size >> 9)
        result = i32(0x7FFF << 10)
        if at < 255:
            low, high = table[at], table[i32(at + 1)]
            result = i32((low << 9) + i32(size & 0x1FF) * i32(high - low))
        result = i32(result + (1 << 9)) if value >= 0 else i32((1 << 25) - result + (1 << 9) - 1)
        y[i] = i32(result >> 10)


def tanh_int16(x: Array, table: Array, y: Array, count: Number, scaling: Values) -> None:
    """scaling: of `logistic_int16` (integer_ops/tanh.h)."""
    multiplier, shift = scaling
    half = i32(i32(1 << shift) >> 1)
    for i in range(count):
        value = i32(i32(x[i] * multiplier + half) >> shift)
        size = abs(value)
        at = i32(size >> 8)
        result = i32(0xFFFF << 8)
        if at < 255:
            low, high = table[at], table[i32(at + 1)]
            result = i32((low << 8) + i32(size & 0xFF) * i32(high - low))
        centred = i32(result - (1 << 23))
        centred = i32(centred + (1 << 7)) if value >= 0 else i32((1 << 7) - 1 - centred)
        y[i] = clamp(i32(centred >> 8), i32(-32768), i32(32767))


@prepares_int16("LOGISTIC")
def _prepare_logistic(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return [call(logistic_int16, inputs[0], SIGMOID, outputs[0], inputs[0].size, _sigmoid_scaling(inputs[0]))]


@prepares_int16("TANH")
def _prepare_tanh(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return [call(tanh_int16, inputs[0], SIGMOID, outputs[0], inputs[0].size, _sigmoid_scaling(inputs[0]))]


def _sigmoid_scaling(x: Tensor) -> tuple[int, int]:
    """(multiplier of 15 bits, right shift): scale * 3 * 4096 (activations.cc, TanhPrepare)."""
    real, shift = float(x.scale[0]) * 4096.0 * 3.0, 0
    if real in (3.0, 6.0):
        return int(real), 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        real, shift = real * 2, shift + 1
    return int(real), shift


# ---- SOFTMAX ----


@njit(inline="always")
def _looked_up(value: Number, table: Array) -> Number:
    """value: int16 (common.h, LUTLookup)."""
    at = i32(i32(256) + i32(value >> 7))
    low = i32(table[at])
    return i32(low + i32(i32(i32(table[i32(at + 1)]) - low) * i32(value & 0x7F) + 64 >> 7))


def softmax_int16(x: Array, y: Array, tables: Values, rows: Number, depth: Number, scaling: Values) -> None:
    """Rows of depth (reference/softmax.h, SoftmaxInt16); y holds the exps in between. tables: int16 [513], of
    exp(-10..0) and of 1 / (1 + 0..1). scaling: of differences, so that -65535 is -10."""
    exps, reciprocals = tables
    for r in range(rows):
        start = i32(r * depth)
        top = i32(x[start])
        for c in range(depth):
            top = max(top, i32(x[i32(start + c)]))
        total = i32(0)
        for c in range(depth):
            difference = requantize(i32(x[i32(start + c)] - top), scaling[0], scaling[1])
            exp = _looked_up(clamp(i32(difference + 32767), i32(-32768), i32(32767)), exps)
            y[i32(start + c)] = exp
            total = i32(total + exp)
        zeros = leading_zeros(total)
        shifted = i32((i64(i64(total) << i64(zeros - 1)) + i64(1 << 13)) >> i64(14))
        reciprocal = _looked_up(clamp(i32(shifted - ((1 << 15) + (1 << 16))), i32(-32768), i32(32767)), reciprocals)
        down = i32(31 - zeros)
        half = i32(i32(1 << down) >> 1)
        for c in range(depth):
            scaled = i32(i32(y[i32(start + c)]) * reciprocal + half >> down)
            y[i32(start + c)] = clamp(scaled, i32(0), i32(32767))


@prepares_int16("SOFTMAX")
def _prepare_softmax(inputs: Inputs, outputs: Outputs, options: SoftmaxOptions) -> list[Call]:
    x, (y,) = inputs[0], outputs
    depth = x.shape[-1]
    scaling = quantize_multiplier(float(x.scale[0]) * options.beta / (10.0 / 65535.0))
    return [call(softmax_int16, x, y, (EXP, RECIPROCAL), x.size // depth, depth, scaling)]


def table_of(function: Callable[[np.ndarray], np.ndarray], scale: float, zero: int) -> np.ndarray:
    """int16 [513] of a function of scale * (stored - zero), for results from -1 to 1: entries are moved by half the
    error that interpolating has in the middle of a step (common.h, LUTPopulateInt16; float32 in TensorFlow Lite
    Micro)."""
    low, high = (f32(scale) * f32(end - zero) for end in (INT16_MIN, INT16_MAX))
    step = (high - low) / f32(512)
    factor = f32(65536) / (f32(2.0 / 65535.0) * f32(INT16_MAX) - f32(2.0 / 65535.0) * f32(INT16_MIN))
    at = low + np.arange(513, dtype=np.float32) * step

    def stored(x: np.ndarray) -> np.ndarray:
        return function(x.astype(np.float64)).astype(np.float32) * factor

    ends, middles = stored(at), round_half_away(stored(at[:-1] + step / f32(2)))
    begins = round_half_away(ends[:-1])
    interpolated = round_half_away((ends[1:] + begins) / f32(2))
    moved = begins - round_half_away((interpolated - middles) / f32(2))
    last = round_half_away(stored(np.array([high])))
    return np.clip(np.append(moved, last), INT16_MIN, INT16_MAX).astype(np.int16)


EXP = table_of(np.exp, 10.0 / 65535.0, INT16_MAX)
RECIPROCAL = table_of(lambda x: 1 / (1 + x), 1.0 / 65535.0, INT16_MIN)
