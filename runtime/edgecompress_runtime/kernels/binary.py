"""Arithmetic on two operands, broadcast, and PRELU.

dims and strides are those of `strides.collapsed`; y is written in order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edgecompress_runtime.kernels.arithmetic import (
    activation_range,
    as_float,
    clamp,
    float_activation_range,
    i32,
    quantize_multiplier,
    requantize,
)
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.kernels.strides import broadcast, collapsed, offset, row_count
from edgecompress_runtime.options import Activated, ActivationOptions, Options, SumOptions
from edgecompress_runtime.plan import Tensor

ADD, SUB, MUL, MINIMUM, MAXIMUM = range(5)
HEADROOM = 20  # bits by which ADD and SUB scale their operands up (add.cc, left_shift)


def add_int8(
    a,
    b,
    y,
    dims,
    a_strides,
    b_strides,
    a_zero,
    b_zero,
    y_zero,
    a_multiplier,
    a_shift,
    b_multiplier,
    b_shift,
    y_multiplier,
    y_shift,
    sign,
    low,
    high,
):
    """a + sign * b: both operands are brought to twice the larger scale, added, and scaled to y's."""
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            left = i32(i32(a[i32(a_row + i * a_strides[5])] - a_zero) << i32(HEADROOM))
            right = i32(i32(b[i32(b_row + i * b_strides[5])] - b_zero) << i32(HEADROOM))
            left, right = requantize(left, a_multiplier, a_shift), requantize(right, b_multiplier, b_shift)
            total = i32(left + sign * right)
            y[i32(y_row + i)] = clamp(i32(requantize(total, y_multiplier, y_shift) + y_zero), low, high)


def mul_int8(a, b, y, dims, a_strides, b_strides, a_zero, b_zero, y_zero, multiplier, shift, low, high):
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            left = i32(a[i32(a_row + i * a_strides[5])] - a_zero)
            right = i32(b[i32(b_row + i * b_strides[5])] - b_zero)
            scaled = requantize(i32(left * right), multiplier, shift)
            y[i32(y_row + i)] = clamp(i32(scaled + y_zero), low, high)


def prelu_int8(
    x,
    slope,
    y,
    dims,
    x_strides,
    slope_strides,
    x_zero,
    slope_zero,
    y_zero,
    multiplier,
    shift,
    slope_multiplier,
    slope_shift,
):
    """x where x >= 0, else x * slope."""
    for row in range(row_count(dims)):
        x_row, slope_row = offset(row, dims, x_strides), offset(row, dims, slope_strides)
        for i in range(dims[5]):
            value = i32(x[i32(x_row + i * x_strides[5])] - x_zero)
            factor = i32(slope[i32(slope_row + i * slope_strides[5])] - slope_zero)
            if value >= 0:
                scaled = requantize(value, multiplier, shift)
            else:
                scaled = requantize(i32(value * factor), slope_multiplier, slope_shift)
            y[i32(row * dims[5] + i)] = clamp(i32(scaled + y_zero), i32(-128), i32(127))


def prelu_float(x, slope, y, dims, x_strides, slope_strides):
    for row in range(row_count(dims)):
        x_row, slope_row = offset(row, dims, x_strides), offset(row, dims, slope_strides)
        for i in range(dims[5]):
            value = x[i32(x_row + i * x_strides[5])]
            factor = slope[i32(slope_row + i * slope_strides[5])]
            y[i32(row * dims[5] + i)] = value if value >= 0 else value * factor


@njit(inline="always")
def arithmetic(kind, a, b):
    # A chain, so that one compiled kernel serves all; with a literal `kind` LLVM leaves one branch.
    if kind == ADD:
        return a + b
    if kind == SUB:
        return a - b
    if kind == MUL:
        return a * b
    if kind == MINIMUM:
        return min(a, b)
    return max(a, b)


def binary(a, b, y, dims, a_strides, b_strides, kind):
    """float32 or integers as they are; int8 only for MINIMUM and MAXIMUM of equally scaled operands."""
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            value = arithmetic(kind, a[i32(a_row + i * a_strides[5])], b[i32(b_row + i * b_strides[5])])
            y[i32(y_row + i)] = value


def binary_clamped(a, b, y, dims, a_strides, b_strides, kind, low, high):
    """float32 with a fused activation."""
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            value = arithmetic(kind, a[i32(a_row + i * a_strides[5])], b[i32(b_row + i * b_strides[5])])
            y[i32(y_row + i)] = clamp(value, low, high)


def divide(a, b, y, dims, a_strides, b_strides, low, high):
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            value = a[i32(a_row + i * a_strides[5])] / b[i32(b_row + i * b_strides[5])]
            y[i32(y_row + i)] = clamp(value, low, high)


def power(a, b, y, dims, a_strides, b_strides):
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            y[i32(y_row + i)] = a[i32(a_row + i * a_strides[5])] ** b[i32(b_row + i * b_strides[5])]


# ---- preparation ----


def geometry(a: Tensor, b: Tensor, y: Tensor) -> tuple[tuple[int, ...], ...]:
    """(dims, strides of a, strides of b)."""
    return collapsed(y.shape, broadcast(a.shape, y.shape), broadcast(b.shape, y.shape))


@prepares("ADD")
def prepare_add(inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    return _sum(ADD, inputs, outputs, options)


@prepares("SUB")
def prepare_sub(inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    return _sum(SUB, inputs, outputs, options)


def _sum(kind: int, inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    if not a.is_int8:
        return _unquantised(kind, a, b, y, options)
    a_scale, b_scale, y_scale = (float(t.scale[0]) for t in (a, b, y))
    twice = 2 * max(a_scale, b_scale)
    reals = a_scale / twice, b_scale / twice, twice / (2**HEADROOM * y_scale)
    scalings = [number for real in reals for number in quantize_multiplier(real)]
    rest = a.zero, b.zero, y.zero, *scalings, 1 if kind == ADD else -1, *activation_range(options, y)
    return [call(add_int8, a, b, y, *geometry(a, b, y), *rest)]


@prepares("MUL")
def prepare_mul(inputs: Inputs, outputs: Outputs, options: ActivationOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    if not a.is_int8:
        return _unquantised(MUL, a, b, y, options)
    # in float32 throughout, as mul.cc has it
    scaling = quantize_multiplier(float(a.scale[0] * b.scale[0] / y.scale[0]))
    rest = a.zero, b.zero, y.zero, *scaling, *activation_range(options, y)
    return [call(mul_int8, a, b, y, *geometry(a, b, y), *rest)]


@prepares("PRELU")
def prepare_prelu(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, slope, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8:
        return [call(prelu_float, x, as_float(slope), y, *geometry(x, slope, y))]
    identity = quantize_multiplier(float(x.scale[0] / y.scale[0]))
    scaled = quantize_multiplier(float(x.scale[0] * slope.scale[0] / y.scale[0]))
    rest = x.zero, slope.zero, y.zero, *identity, *scaled
    return [call(prelu_int8, x, slope, y, *geometry(x, slope, y), *rest)]


@prepares("MINIMUM")
def prepare_minimum(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _unquantised(MINIMUM, inputs[0], inputs[1], outputs[0], ActivationOptions())


@prepares("MAXIMUM")
def prepare_maximum(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _unquantised(MAXIMUM, inputs[0], inputs[1], outputs[0], ActivationOptions())


@prepares("DIV")
def prepare_div(inputs: Inputs, outputs: Outputs, options: ActivationOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    return [call(divide, as_float(a), as_float(b), y, *geometry(a, b, y), *float_activation_range(options))]


@prepares("POW")
def prepare_pow(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    return [call(power, as_float(a), as_float(b), y, *geometry(a, b, y))]


def _unquantised(kind: int, a: Tensor, b: Tensor, y: Tensor, options: Activated) -> list[Call]:
    if y.dtype == np.float32:
        a_data, b_data = as_float(a), as_float(b)
        if options.fused_activation_function:
            bounds = float_activation_range(options)
            return [call(binary_clamped, a_data, b_data, y, *geometry(a, b, y), kind, *bounds)]
        return [call(binary, a_data, b_data, y, *geometry(a, b, y), kind)]
    return [call(binary, a, b, y, *geometry(a, b, y), kind)]
