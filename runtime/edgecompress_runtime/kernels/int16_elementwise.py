"""ADD, SUB, MUL, RELU, LEAKY_RELU and conversions of int16 activations, whose zero point is 0."""

from __future__ import annotations

import math

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Number,
    Values,
    activation_range,
    clamp,
    f32,
    i32,
    quantize_multiplier,
    requantize,
    stored_bound,
    stored_ends,
)
from edgecompress_runtime.kernels.binary import geometry
from edgecompress_runtime.kernels.quantize import dequantize
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares_int16
from edgecompress_runtime.kernels.strides import offset, row_count
from edgecompress_runtime.options import ActivationOptions, LeakyReluOptions, Options, SumOptions
from edgecompress_runtime.plan import Tensor

HEADROOM = 15  # bits by which ADD and SUB scale their operands up (add.cc, left_shift)


def add_int16(a: Array, b: Array, y: Array, dims: Values, strides: Values, scalings: Values, ends: Values) -> None:
    """a + sign * b, as `binary.add_int8` has it. strides: of a and b. scalings: of a, b and y. ends: sign, lowest and
    highest y."""
    (a_strides, b_strides), (a_scaling, b_scaling, y_scaling), (sign, low, high) = strides, scalings, ends
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            left = i32(i32(a[i32(a_row + i * a_strides[5])]) << i32(HEADROOM))
            right = i32(i32(b[i32(b_row + i * b_strides[5])]) << i32(HEADROOM))
            left, right = requantize(left, a_scaling[0], a_scaling[1]), requantize(right, b_scaling[0], b_scaling[1])
            scaled = requantize(i32(left + sign * right), y_scaling[0], y_scaling[1])
            y[i32(y_row + i)] = clamp(scaled, low, high)


def mul_int16(a: Array, b: Array, y: Array, dims: Values, strides: Values, scaling: Values, bounds: Values) -> None:
    """strides: of a and b. scaling: multiplier, shift."""
    a_strides, b_strides = strides
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            product = i32(i32(a[i32(a_row + i * a_strides[5])]) * i32(b[i32(b_row + i * b_strides[5])]))
            y[i32(y_row + i)] = clamp(requantize(product, scaling[0], scaling[1]), bounds[0], bounds[1])


def extreme_int16(a: Array, b: Array, y: Array, dims: Values, strides: Values, sign: Number) -> None:
    """The larger (sign 1) or smaller (sign -1) of two numbers of one scale. strides: of a and b."""
    a_strides, b_strides = strides
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            left, right = a[i32(a_row + i * a_strides[5])], b[i32(b_row + i * b_strides[5])]
            y[i32(y_row + i)] = max(left, right) if sign > 0 else min(left, right)


def rescale(x: Array, y: Array, count: Number, scalings: Values, zeros: Values, bounds: Values) -> None:
    """Between int8 and int16, or scales of one. scalings: multiplier and shift of what is 0 or more, and of the rest.
    zeros: of x and y."""
    positive, negative = scalings
    for i in range(count):
        value = i32(x[i] - zeros[0])
        if value >= 0:
            scaled = requantize(value, positive[0], positive[1])
        else:
            scaled = requantize(value, negative[0], negative[1])
        y[i] = clamp(i32(scaled + zeros[1]), bounds[0], bounds[1])


def quantize_int16(x: Array, y: Array, count: Number, scale: Number) -> None:
    """float32 -> int16, rounded to nearest, halves away from zero (reference/quantize.h AffineQuantize)."""
    for i in range(count):
        real = clamp(x[i] / scale, f32(-40000), f32(40000))  # so that it fits an int32; int16 ends before
        stored = i32(real)
        rest = real - f32(stored)
        if rest >= f32(0.5):
            stored = i32(stored + i32(1))
        elif rest <= f32(-0.5):
            stored = i32(stored - i32(1))
        y[i] = clamp(stored, i32(-32768), i32(32767))


# ---- preparation ----


def _sum(sign: int, inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    if options.pot_scale_int16 and all(_is_power_of_two(t) for t in (a, b, y)):
        raise UnsupportedOperatorError("ADD or SUB of int16 with potScaleInt16 and scales that are powers of two")
    a_scale, b_scale, y_scale = (float(t.scale[0]) for t in (a, b, y))
    twice = 2 * max(a_scale, b_scale)
    reals = a_scale / twice, b_scale / twice, twice / (2**HEADROOM * y_scale)
    dims, *strides = geometry(a, b, y)
    ends = sign, *activation_range(options, y)
    return [call(add_int16, a, b, y, dims, tuple(strides), tuple(quantize_multiplier(r) for r in reals), ends)]


def _is_power_of_two(tensor: Tensor) -> bool:
    """Whether TFLite takes the scale for one (kernel_util.cc CheckedLog2: to 1e-3 of the logarithm)."""
    return abs(_log2(tensor) - round(_log2(tensor))) < 1e-3


def _log2(tensor: Tensor) -> float:
    return math.log2(float(tensor.scale[0]))


@prepares_int16("ADD")
def _prepare_add(inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    return _sum(1, inputs, outputs, options)


@prepares_int16("SUB")
def _prepare_sub(inputs: Inputs, outputs: Outputs, options: SumOptions) -> list[Call]:
    return _sum(-1, inputs, outputs, options)


@prepares_int16("MUL")
def _prepare_mul(inputs: Inputs, outputs: Outputs, options: ActivationOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    dims, *strides = geometry(a, b, y)
    scaling = quantize_multiplier(float(a.scale[0]) * float(b.scale[0]) / float(y.scale[0]))
    return [call(mul_int16, a, b, y, dims, tuple(strides), scaling, activation_range(options, y))]


@prepares_int16("MAXIMUM")
def _prepare_maximum(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _extreme(1, inputs, outputs)


@prepares_int16("MINIMUM")
def _prepare_minimum(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _extreme(-1, inputs, outputs)


def _extreme(sign: int, inputs: Inputs, outputs: Outputs) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    dims, *strides = geometry(a, b, y)
    return [call(extreme_int16, a, b, y, dims, tuple(strides), sign)]


@prepares_int16("RELU")
def _prepare_relu(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    scaling = quantize_multiplier(float(x.scale[0]) / float(y.scale[0]))
    bounds = stored_bound(0.0, y, stored_ends(y)[0]), stored_ends(y)[1]
    return [call(rescale, x, y, x.size, (scaling, scaling), (0, 0), bounds)]


@prepares_int16("LEAKY_RELU")
def _prepare_leaky_relu(inputs: Inputs, outputs: Outputs, options: LeakyReluOptions) -> list[Call]:
    x, (y,) = inputs[0], outputs
    ratio = float(x.scale[0]) / float(y.scale[0])
    scalings = quantize_multiplier(ratio), quantize_multiplier(ratio * float(f32(options.alpha)))
    return [call(rescale, x, y, x.size, scalings, (0, 0), stored_ends(y))]


@prepares_int16("QUANTIZE")
def _prepare_quantize(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    if not (x.is_int8 or x.is_int16):
        return [call(quantize_int16, x, y, x.size, float(y.scale[0]))]
    scaling = quantize_multiplier(float(x.scale[0]) / float(y.scale[0]))
    return [call(rescale, x, y, x.size, (scaling, scaling), (x.zero, y.zero), stored_ends(y))]


@prepares_int16("DEQUANTIZE")
def _prepare_dequantize(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    return [call(dequantize, x, y, x.size, float(x.scale[0]), 0)]
