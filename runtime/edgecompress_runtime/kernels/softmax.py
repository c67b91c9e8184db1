"""SOFTMAX and LOG_SOFTMAX along the last axis: rows of `depth`.

int8 works in fixed point as reference/softmax.h and integer_ops/log_softmax.h do; exp of every possible
difference to the row's maximum is a table, filled when the layer is prepared.
"""

from __future__ import annotations

import math

import numpy as np

from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Number,
    Values,
    clamp,
    divide_by_power_of_two,
    f32,
    high_product,
    i32,
    quantize_multiplier,
    requantize,
    requantized,
)
from edgecompress_runtime.kernels.fixed_point import exp_on_negative, leading_zeros, log_of_sum, one_over_one_plus
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.options import Options, SoftmaxOptions
from edgecompress_runtime.plan import Tensor

# integer bits of scaled differences, of the sum of exps, of log_softmax's output
INTEGER_BITS, SUM_BITS, OUTPUT_BITS = 5, 12, 4


def softmax(x: Array, y: Array, exps: Array, rows: Number, depth: Number) -> None:
    """exps: int32 [256], exp of a difference d = -255..0 at d + 255, 0 integer bits."""
    for r in range(rows):
        start = i32(r * depth)
        top = i32(-128)
        for c in range(depth):
            top = max(top, i32(x[i32(start + c)]))
        total = i32(0)
        for c in range(depth):
            exp = exps[i32(x[i32(start + c)] - top + 255)]
            total = i32(total + divide_by_power_of_two(exp, i32(SUM_BITS)))
        zeros = leading_zeros(total)
        # total as 1.f * 2**n: its reciprocal is 1 / (1 + f) / 2**n
        reciprocal = one_over_one_plus(i32((total << zeros) + i32(-(2**31))))
        exponent = i32(SUM_BITS - zeros + 31 - 8)
        for c in range(depth):
            exp = exps[i32(x[i32(start + c)] - top + 255)]
            stored = i32(divide_by_power_of_two(high_product(reciprocal, exp), exponent) - 128)
            y[i32(start + c)] = clamp(stored, i32(-128), i32(127))


def log_softmax(
    x: Array, y: Array, exps: Array, rows: Number, depth: Number, scalings: Values, smallest: Number
) -> None:
    """scalings: (multiplier, shift) of differences to 5 integer bits, and back. smallest: differences below it count as
    minus infinity."""
    (multiplier, shift), (reverse_multiplier, reverse_shift) = scalings
    for r in range(rows):
        start = i32(r * depth)
        top = i32(-128)
        for c in range(depth):
            top = max(top, i32(x[i32(start + c)]))
        total = i32(0)
        for c in range(depth):
            exp = exps[i32(x[i32(start + c)] - top + 255)]
            total = i32(total + divide_by_power_of_two(exp, i32(SUM_BITS)))
        log = log_of_sum(total)
        reach = requantize(i32(log + i32(-(2**31))), reverse_multiplier, reverse_shift)
        lowest = max(i32(smallest - 1), reach)
        for c in range(depth):
            difference = i32(x[i32(start + c)] - top)
            stored = i32(-128)
            if difference > lowest:
                real = i32(requantize(difference, multiplier, shift) - log)
                stored = i32(divide_by_power_of_two(real, i32(31 - INTEGER_BITS - OUTPUT_BITS)) + 127)
            y[i32(start + c)] = clamp(stored, i32(-128), i32(127))


def softmax_float(x: Array, y: Array, rows: Number, depth: Number, beta: Number) -> None:
    """beta: factor of x."""
    for r in range(rows):
        start = i32(r * depth)
        top = x[start]
        for c in range(depth):
            top = max(top, x[i32(start + c)])
        total = f32(0)
        for c in range(depth):
            exp = math.exp((x[i32(start + c)] - top) * beta)
            y[i32(start + c)] = exp
            total += exp
        for c in range(depth):
            y[i32(start + c)] = y[i32(start + c)] / total


def log_softmax_float(x: Array, y: Array, rows: Number, depth: Number) -> None:
    """x - log(sum(exp(x))), from the row's maximum."""
    for r in range(rows):
        start = i32(r * depth)
        top = x[start]
        for c in range(depth):
            top = max(top, x[i32(start + c)])
        total = f32(0)
        for c in range(depth):
            total += math.exp(x[i32(start + c)] - top)
        log = math.log(total)
        for c in range(depth):
            y[i32(start + c)] = x[i32(start + c)] - top - log


@prepares("SOFTMAX")
def _prepare_softmax(inputs: Inputs, outputs: Outputs, options: SoftmaxOptions) -> list[Call]:
    x, (y,) = inputs[0], outputs
    depth = x.shape[-1]
    if not x.is_int8:
        return [call(softmax_float, x, y, x.size // depth, depth, float(options.beta))]
    multiplier, shift, smallest = scaling(x, float(f32(options.beta)))
    return [call(softmax, x, y, exp_table(multiplier, shift, smallest), x.size // depth, depth)]


@prepares("LOG_SOFTMAX")
def _prepare_log_softmax(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    depth = x.shape[-1]
    if not x.is_int8:
        return [call(log_softmax_float, x, y, x.size // depth, depth)]
    multiplier, shift, smallest = scaling(x, 1.0)
    reverse = quantize_multiplier(2.0 ** (31 - shift) / multiplier)
    exps = exp_table(multiplier, shift, smallest)
    return [call(log_softmax, x, y, exps, x.size // depth, depth, ((multiplier, shift), reverse), smallest)]


def scaling(x: Tensor, beta: float) -> tuple[int, int, int]:
    """(multiplier, shift) to 5 integer bits, and the smallest difference that still counts
    (quantization_util.cc PreprocessSoftmaxScaling and CalculateInputRadius)."""
    real = min(beta * float(x.scale[0]) * 2.0 ** (31 - INTEGER_BITS), 2.0**30 - 1)
    multiplier, shift = quantize_multiplier(real)
    radius = math.floor((2**INTEGER_BITS - 1) * 2.0 ** (31 - INTEGER_BITS) / 2.0**shift)
    return multiplier, shift, -radius


def exp_table(multiplier: int, shift: int, smallest: int) -> np.ndarray:
    """int32 [256] for differences -255..0; 0 below `smallest`."""
    differences = np.arange(-255, 1, dtype=np.int64)
    counted = differences >= smallest
    raw = requantized(np.where(counted, differences, 0), multiplier, shift)
    return np.where(counted, exp_on_negative(raw, INTEGER_BITS), 0).astype(np.int32)
