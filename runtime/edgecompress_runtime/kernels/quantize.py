"""Conversions between types: QUANTIZE, DEQUANTIZE and CAST."""

from __future__ import annotations

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.kernels.arithmetic import Array, Number, Values, clamp, dequantized, f32, i32
from edgecompress_runtime.kernels.int8_table import rescaled, table_call
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.kernels.strides import offset, row_count
from edgecompress_runtime.options import Options


def quantize(x: Array, y: Array, count: Number, scale: Number, zero: Number) -> None:
    """float32 -> int8, rounded to nearest, halves away from zero (reference/quantize.h AffineQuantize)."""
    for i in range(count):
        real = x[i] / scale
        real = clamp(real, f32(-1000), f32(1000))  # so that it fits an int32; int8 ends before
        stored = i32(real)
        rest = real - f32(stored)
        if rest >= f32(0.5):
            stored = i32(stored + i32(1))
        elif rest <= f32(-0.5):
            stored = i32(stored - i32(1))
        y[i] = clamp(i32(stored + zero), i32(-128), i32(127))


def dequantize(x: Array, y: Array, count: Number, scale: Number, zero: Number) -> None:
    """int8 -> float32."""
    for i in range(count):
        y[i] = scale * f32(i32(x[i] - zero))


def strided_dequantize(x: Array, y: Array, geometry: Values, y_start: Number, scale: Number, zero: Number) -> None:
    """`dequantize` into a part of y, which begins at y_start; geometry: dims, and the strides of x and y, of
    `strides.collapsed`."""
    dims, x_strides, y_strides = geometry
    for row in range(row_count(dims)):
        x_row, y_row = offset(row, dims, x_strides), i32(y_start + offset(row, dims, y_strides))
        for i in range(dims[5]):
            value = i32(x[i32(x_row + i * x_strides[5])] - zero)
            y[i32(y_row + i * y_strides[5])] = scale * f32(value)


def cast(x: Array, y: Array, count: Number) -> None:
    """Converts elements as Numba converts between their types."""
    for i in range(count):
        y[i] = x[i]


def cast_to_bool(x: Array, y: Array, count: Number) -> None:
    """1 for any number but zero."""
    for i in range(count):
        y[i] = x[i] != 0


@prepares("QUANTIZE")
def _prepare_quantize(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    if x.is_int8:
        return table_call(x, y, rescaled(x, y))
    return [call(quantize, x, y, x.size, float(y.scale[0]), y.zero)]


@prepares("DEQUANTIZE")
def _prepare_dequantize(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    if x.data is not None:
        return [call(cast, dequantized(x).reshape(-1), y, x.size)]
    if not x.is_int8:
        raise UnsupportedOperatorError(f"DEQUANTIZE of computed {x.dtype} values (tensor {x.name!r})")
    return [call(dequantize, x, y, x.size, float(x.scale[0]), x.zero)]


@prepares("CAST")
def _prepare_cast(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    return [call(cast_to_bool if y.dtype == bool else cast, x, y, x.size)]
