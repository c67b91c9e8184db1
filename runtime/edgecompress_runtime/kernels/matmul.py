"""FULLY_CONNECTED (x [rows, depth], w [units, depth], y [rows, units]) and BATCH_MATMUL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Values,
    activation_range,
    as_float,
    clamp,
    f32,
    float_activation_range,
    i32,
    product_ratio,
    quantize_multiplier,
    quantize_multipliers,
    requantize,
)
from edgecompress_runtime.kernels.convolution import bias_of, channel_scales
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.kernels.strides import broadcast, contiguous
from edgecompress_runtime.options import BatchMatmulOptions, FullyConnectedOptions
from edgecompress_runtime.plan import Tensor


def fully_connected(
    x: Array, w: Array, channels: Values, y: Array, sizes: Values, zeros: Values, bounds: Values
) -> None:
    """channels: bias, multipliers and shifts. sizes: rows, depth, units. zeros: zero points of x, w and y."""
    (bias, multiplier, shift), (rows, depth, units), (x_zero, w_zero, y_zero) = channels, sizes, zeros
    for r in range(rows):
        source = i32(r * depth)
        for o in range(units):
            weights = i32(o * depth)
            acc = i32(bias[o])
            for c in range(depth):
                acc = i32(acc + i32(w[i32(weights + c)] - w_zero) * i32(x[i32(source + c)] - x_zero))
            scaled = i32(requantize(acc, multiplier[o], shift[o]) + y_zero)
            y[i32(r * units + o)] = clamp(scaled, bounds[0], bounds[1])


def fully_connected_float(x: Array, w: Array, bias: Array, y: Array, sizes: Values, bounds: Values) -> None:
    """sizes: rows, depth, units."""
    rows, depth, units = sizes
    for r in range(rows):
        source = i32(r * depth)
        for o in range(units):
            weights = i32(o * depth)
            acc = f32(0)
            for c in range(depth):
                acc += w[i32(weights + c)] * x[i32(source + c)]
            y[i32(r * units + o)] = clamp(acc + bias[o], bounds[0], bounds[1])


def batch_matmul(a: Array, b: Array, y: Array, sizes: Values, strides: Values, zeros: Values, scaling: Values) -> None:
    """sizes: (n0, n1, n2, rows, columns, depth). strides: of a and b along n0, n1, n2, rows (a) or columns (b), and
    depth. zeros: zero points of a, b and y. scaling: multiplier, shift."""
    (n0, n1, n2, rows, columns, depth), (a_strides, b_strides) = sizes, strides
    a_zero, b_zero, y_zero = zeros
    for i in range(n0):
        for j in range(n1):
            for k in range(n2):
                a_matrix = i32(i * a_strides[0] + j * a_strides[1] + k * a_strides[2])
                b_matrix = i32(i * b_strides[0] + j * b_strides[1] + k * b_strides[2])
                y_matrix = i32(((i * n1 + j) * n2 + k) * rows * columns)
                for r in range(rows):
                    a_row = i32(a_matrix + r * a_strides[3])
                    for o in range(columns):
                        b_column = i32(b_matrix + o * b_strides[3])
                        acc = i32(0)
                        for c in range(depth):
                            left = i32(a[i32(a_row + c * a_strides[4])] - a_zero)
                            acc = i32(acc + left * i32(b[i32(b_column + c * b_strides[4])] - b_zero))
                        scaled = i32(requantize(acc, scaling[0], scaling[1]) + y_zero)
                        y[i32(y_matrix + r * columns + o)] = clamp(scaled, i32(-128), i32(127))


def batch_matmul_float(a: Array, b: Array, y: Array, sizes: Values, strides: Values) -> None:
    """sizes, strides: of `batch_matmul`."""
    (n0, n1, n2, rows, columns, depth), (a_strides, b_strides) = sizes, strides
    for i in range(n0):
        for j in range(n1):
            for k in range(n2):
                a_matrix = i32(i * a_strides[0] + j * a_strides[1] + k * a_strides[2])
                b_matrix = i32(i * b_strides[0] + j * b_strides[1] + k * b_strides[2])
                y_matrix = i32(((i * n1 + j) * n2 + k) * rows * columns)
                for r in range(rows):
                    a_row = i32(a_matrix + r * a_strides[3])
                    for o in range(columns):
                        b_column = i32(b_matrix + o * b_strides[3])
                        acc = f32(0)
                        for c in range(depth):
                            acc += a[i32(a_row + c * a_strides[4])] * b[i32(b_column + c * b_strides[4])]
                        y[i32(y_matrix + r * columns + o)] = acc


@prepares("FULLY_CONNECTED")
def prepare_fully_connected(inputs: Inputs, outputs: Outputs, options: FullyConnectedOptions) -> list[Call]:
    """FULLY_CONNECTED: the one call of its kernel, from whose arguments families arrange their own."""
    x, w, (y,) = inputs[0], inputs[1], outputs
    bias = bias_of(inputs, y)
    units, depth = w.shape
    sizes = x.size // depth, depth, units
    if not x.is_int8:
        bounds = float_activation_range(options)
        return [call(fully_connected_float, as_float(x), as_float(w), bias, y, sizes, bounds)]
    multiplier, shift = unit_multipliers(x, w, y)
    zeros = x.zero, w.zero, y.zero
    return [call(fully_connected, x, w, (bias, multiplier, shift), y, sizes, zeros, activation_range(options, y))]


@prepares("BATCH_MATMUL")
def _prepare_batch_matmul(inputs: Inputs, outputs: Outputs, options: BatchMatmulOptions) -> list[Call]:
    a, b, (y,) = inputs[0], inputs[1], outputs
    geometry = matrix_geometry(a, b, y, options)
    if not a.is_int8:
        return [call(batch_matmul_float, as_float(a), as_float(b), y, *geometry)]
    scaling = quantize_multiplier(product_ratio(a, b, y))
    return [call(batch_matmul, a, b, y, *geometry, (a.zero, b.zero, y.zero), scaling)]


def matrix_geometry(a: Tensor, b: Tensor, y: Tensor, options: BatchMatmulOptions) -> tuple[tuple[Any, ...], ...]:
    """sizes and strides of `batch_matmul`."""
    batch = y.shape[:-2]
    if len(batch) > 3:  # TFLite stops at rank 5
        raise UnsupportedOperatorError(f"BATCH_MATMUL of rank {len(y.shape)}")
    lead = (1,) * (3 - len(batch)) + tuple(batch)
    a_strides = _operand_strides(a.shape, lead, transposed=options.adj_x)
    b_strides = _operand_strides(b.shape, lead, transposed=not options.adj_y)
    depth = a.shape[-2] if options.adj_x else a.shape[-1]
    return (*lead, *y.shape[-2:], depth), (a_strides, b_strides)


def _operand_strides(shape: Sequence[int], lead: Sequence[int], *, transposed: bool) -> tuple[int, ...]:
    own = contiguous(shape)
    matrix = (own[-1], own[-2]) if transposed else (own[-2], own[-1])
    return (*broadcast(tuple(shape), (*lead, *shape[-2:]))[:3], *matrix)


def unit_multipliers(x: Tensor, w: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """int32 multipliers and shifts [units] of a fully connected layer."""
    return quantize_multipliers(np.broadcast_to(channel_scales(x, w, y), w.shape[0]))
