"""Arithmetic on two operands, broadcast, and PRELU.

geometry: dims and both operands' strides, of `strides.collapsed`; y is written in order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Number,
    Values,
    activation_range,
    as_float,
    clamp,
    float_activation_range,
    i32,
    product_ratio,
    quantize_multiplier,
    requantize,
    saturating_multiplier,
    scale_ratio,
)
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.kernels.strides import broadcast, collapsed, offset, row_count
from edgecompress_runtime.options import Activated, ActivationOptions, Options, SumOptions
from edgecompress_runtime.plan import Tensor

ADD, SUB, MUL, MINIMUM, MAXIMUM = range(5)
HEADROOM = 20  # bits by which ADD and SUB scale their operands up (add.cc, left_shift)


def add_int8(a: Array, b: Array, y: Array, geometry: Values, zeros: Values, scalings: Values, ends: Values) -> None:
    """a + sign * b: both operands are brought to twice the larger scale, added, and scaled to y's. zeros, scalings: of
    a, b and y. ends: sign, lowest and highest y."""
    dims, a_strides, b_strides = geometry
    (a_scaling, b_scaling, y_scaling), (sign, low, high) = scalings, ends
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            left = i32(i32(a[i32(a_row + i * a_strides[5])] - zeros[0]) << i32(HEADROOM))
            right = i32(i32(b[i32(b_row + i * b_strides[5])] - zeros[1]) << i32(HEADROOM))
            left, right = requantize(left, a_scaling[0], a_scaling[1]), requantize(right, b_scaling[0], b_scaling[1])
            total = i32(left + sign * right)
            scaled = requantize(total, y_scaling[0], y_scaling[1])
            y[i32(y_row + i)] = clamp(i32(scaled + zeros[2]), low, high)


def mul_int8(a: Array, b: Array, y: Array, geometry: Values, zeros: Values, scaling: Values, bounds: Values) -> None:
    """zeros: of a, b and y. scaling: multiplier, shift."""
    dims, a_strides, b_strides = geometry
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            left = i32(a[i32(a_row + i * a_strides[5])] - zeros[0])
            right = i32(b[i32(b_row + i * b_strides[5])] - zeros[1])
            scaled = requantize(i32(left * right), scaling[0], scaling[1])
            y[i32(y_row + i)] = clamp(i32(scaled + zeros[2]), bounds[0], bounds[1])


def prelu_int8(x: Array, slope: Array, y: Array, geometry: Values, zeros: Values, scalings: Values) -> None:
    """x where x >= 0, else x * slope. zeros: of x, slope and y. scalings: of x, and of products."""
    (dims, x_strides, slope_strides), (same, product) = geometry, scalings
    for row in range(row_count(dims)):
        x_row, slope_row = offset(row, dims, x_strides), offset(row, dims, slope_strides)
        for i in range(dims[5]):
            value = i32(x[i32(x_row + i * x_strides[5])] - zeros[0])
            factor = i32(slope[i32(slope_row + i * slope_strides[5])] - zeros[1])
            if value >= 0:
                scaled = requantize(value, same[0], same[1])
            else:
                scaled = requantize(i32(value * factor), product[0], product[1])
            y[i32(row * dims[5] + i)] = clamp(i32(scaled + zeros[2]), i32(-128), i32(127))


def prelu_float(x: Array, slope: Array, y: Array, geometry: Values) -> None:
    """x where x >= 0, else x * slope."""
    dims, x_strides, slope_strides = geometry
    for row in range(row_count(dims)):
        x_row, slope_row = offset(row, dims, x_strides), offset(row, dims, slope_strides)
        for i in range(dims[5]):
            value = x[i32(x_row + i * x_strides[5])]
            factor = slope[i32(slope_row + i * slope_strides[5])]
            y[i32(row * dims[5] + i)] = value if value >= 0 else value * factor


@njit(inline="always")
def arithmetic(kind: Number, a: Number, b: Number) -> Number:
    """a and b by `kind`, one of the numbers above."""
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


def binary(a: Array, b: Array, y: Array, geometry: Values, kind: Number) -> None:
    """float32 or integers as they are; int8 only for MINIMUM and MAXIMUM of equally scaled operands."""
    dims, a_strides, b_strides = geometry
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            value = arithmetic(kind, a[i32(a_row + i * a_strides[5])], b[i32(b_row + i * b_strides[5])])
            y[i32(y_row + i)] = value


def binary_clamped(a: Array, b: Array, y: Array, geometry: Values, kind: Number, bounds: Values) -> None:
    """float32 with a fused activation."""
    dims, a_strides, b_strides = geometry
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            value = arithmetic(kind, a[i32(a_row + i * a_strides[5])], b[i32(b_row + i * b_strides[5])])
            y[i32(y_row + i)] = clamp(value, bounds[0], bounds[1])


def divide(a: Array, b: Array, y: Array, geometry: Values, bounds: Values) -> None:
    """float32 with a fused activation."""
    dims, a_strides, b_strides = geometry
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            value = a[i32(a_row + i * a_strides[5])] / b[i32(b_row + i * b_strides[5])]
            y[i32(y_row + i)] = clamp(value, bounds[0], bounds[1])


def power(a: Array, b: Array, y: Array, geometry: Values) -> None:
    """float32."""
    dims, a_strides, b_strides = geometry
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            y[i32(y_row + i)] = a[i32(a_row + i * a_strides[5])] ** b[i32(b_row + i * b_strides[5])]


# ---- preparation ----


def geometry(a: Tensor, b: Tensor, y: Tensor) -> tuple[tuple[int, ...], ...]:
    """(dims, strides of a, strides of b)."""
    return collapsed(y.shape, broadcast(a.shape, y.shape), broadcast(b.shape, y.shape))


@prepares("ADD")
def _prepare_add(inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    return _sum(ADD, inputs, outputs, options)


@prepares("SUB")
def _prepare_sub(inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    return _sum(SUB, inputs, outputs, options)


def _sum(kind: int, inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    if not a.is_int8:
        return _unquantized(kind, a, b, y, options)
    a_scale, b_scale, y_scale = (float(t.scale[0]) for t in (a, b, y))
    twice = 2 * max(a_scale, b_scale)
    reals = a_scale / twice, b_scale / twice, twice / (2**HEADROOM * y_scale)
    scalings = tuple(quantize_multiplier(real) for real in reals)
    ends = 1 if kind == ADD else -1, *activation_range(options, y)
    return [call(add_int8, a, b, y, geometry(a, b, y), (a.zero, b.zero, y.zero), scalings, ends)]


@prepares("MUL")
def _prepare_mul(inputs: Inputs, outputs: Outputs, options: ActivationOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    if not a.is_int8:
        return _unquantized(MUL, a, b, y, options)
    scaling = saturating_multiplier(product_ratio(a, b, y))
    zeros, bounds = (a.zero, b.zero, y.zero), activation_range(options, y)
    return [call(mul_int8, a, b, y, geometry(a, b, y), zeros, scaling, bounds)]


@prepares("PRELU")
def _prepare_prelu(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, slope, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8:
        return [call(prelu_float, x, as_float(slope), y, geometry(x, slope, y))]
    identity = saturating_multiplier(scale_ratio(x, y))
    scaled = saturating_multiplier(product_ratio(x, slope, y))
    zeros = x.zero, slope.zero, y.zero
    return [call(prelu_int8, x, slope, y, geometry(x, slope, y), zeros, (identity, scaled))]


@prepares("MINIMUM")
def _prepare_minimum(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _unquantized(MINIMUM, inputs[0], inputs[1], outputs[0], ActivationOptions())


@prepares("MAXIMUM")
def _prepare_maximum(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _unquantized(MAXIMUM, inputs[0], inputs[1], outputs[0], ActivationOptions())


@prepares("DIV")
def _prepare_div(inputs: Inputs, outputs: Outputs, options: ActivationOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    return [call(divide, as_float(a), as_float(b), y, geometry(a, b, y), float_activation_range(options))]


@prepares("POW")
def _prepare_pow(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    return [call(power, as_float(a), as_float(b), y, geometry(a, b, y))]


def _unquantized(kind: int, a: Tensor, b: Tensor, y: Tensor, options: Activated) -> list[Call]:
    if y.dtype == np.float32:
        a_data, b_data = as_float(a), as_float(b)
        if options.fused_activation_function:
            bounds = float_activation_range(options)
            return [call(binary_clamped, a_data, b_data, y, geometry(a, b, y), kind, bounds)]
        return [call(binary, a_data, b_data, y, geometry(a, b, y), kind)]
    return [call(binary, a, b, y, geometry(a, b, y), kind)]
