"""MEAN, SUM, REDUCE_MAX, REDUCE_MIN and ARG_MAX along any axes, and CUMSUM along one.

Kept axes and reduced axes are collapsed apart: `kept` and `reduced` are their (dimensions, strides in x).
"""

from __future__ import annotations

import math

import numpy as np

from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Number,
    Values,
    as_float,
    clamp,
    f32,
    i32,
    quantize_multiplier,
    requantize,
)
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares, prepares_int16
from edgecompress_runtime.kernels.strides import Ints, collapsed, contiguous, offset, row_count
from edgecompress_runtime.options import CumulativeOptions, Options
from edgecompress_runtime.plan import Tensor


def sum_int8(
    x: Array, y: Array, kept: Values, reduced: Values, x_offset: Number, scaling: Values, y_zero: Number
) -> None:
    """x_offset: x's zero point times the number of summands. A mean has its division in the multiplier."""
    (dims, strides), (inner, inner_strides) = kept, reduced
    for row in range(row_count(dims)):
        kept_row = offset(row, dims, strides)
        for j in range(dims[5]):
            start = i32(kept_row + j * strides[5])
            acc = i32(0)
            for k in range(row_count(inner)):
                run = i32(start + offset(k, inner, inner_strides))
                for i in range(inner[5]):
                    acc = i32(acc + x[i32(run + i * inner_strides[5])])
            scaled = requantize(i32(acc - x_offset), scaling[0], scaling[1])
            y[i32(row * dims[5] + j)] = clamp(i32(scaled + y_zero), i32(-128), i32(127))


def sum_int16(x: Array, y: Array, kept: Values, reduced: Values, scaling: Values) -> None:
    """Zero points are 0."""
    (dims, strides), (inner, inner_strides) = kept, reduced
    for row in range(row_count(dims)):
        kept_row = offset(row, dims, strides)
        for j in range(dims[5]):
            start = i32(kept_row + j * strides[5])
            acc = i32(0)
            for k in range(row_count(inner)):
                run = i32(start + offset(k, inner, inner_strides))
                for i in range(inner[5]):
                    acc = i32(acc + x[i32(run + i * inner_strides[5])])
            scaled = requantize(acc, scaling[0], scaling[1])
            y[i32(row * dims[5] + j)] = clamp(scaled, i32(-32768), i32(32767))


def sum_float(x: Array, y: Array, kept: Values, reduced: Values, divisor: Number) -> None:
    """divisor: the number of summands for a mean, 1 for a sum."""
    (dims, strides), (inner, inner_strides) = kept, reduced
    for row in range(row_count(dims)):
        kept_row = offset(row, dims, strides)
        for j in range(dims[5]):
            start = i32(kept_row + j * strides[5])
            acc = f32(0)
            for k in range(row_count(inner)):
                run = i32(start + offset(k, inner, inner_strides))
                for i in range(inner[5]):
                    acc += x[i32(run + i * inner_strides[5])]
            y[i32(row * dims[5] + j)] = acc / divisor


def reduce_extreme(x: Array, y: Array, kept: Values, reduced: Values, sign: Number) -> None:
    """The largest (sign 1) or smallest (sign -1)."""
    (dims, strides), (inner, inner_strides) = kept, reduced
    for row in range(row_count(dims)):
        kept_row = offset(row, dims, strides)
        for j in range(dims[5]):
            start = i32(kept_row + j * strides[5])
            best = x[start]
            for k in range(row_count(inner)):
                run = i32(start + offset(k, inner, inner_strides))
                for i in range(inner[5]):
                    value = x[i32(run + i * inner_strides[5])]
                    best = max(best, value) if sign > 0 else min(best, value)
            y[i32(row * dims[5] + j)] = best


def arg_max(x: Array, y: Array, outer: Number, length: Number, inner: Number) -> None:
    """The first of the largest along the middle axis of [outer, length, inner]."""
    for o in range(outer):
        for i in range(inner):
            start = i32(o * length * inner + i)
            where: Number
            best, where = x[start], i32(0)
            for k in range(length):
                value = x[i32(start + k * inner)]
                if value > best:
                    best, where = value, k
            y[i32(o * inner + i)] = where


@prepares("MEAN")
def _prepare_mean(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, axes, (y,) = inputs[0], inputs[1], outputs
    geometry, count = _geometry(x, axes)
    if not x.is_int8:
        return [call(sum_float, as_float(x), y, *geometry, float(count))]
    return [call(sum_int8, x, y, *geometry, x.zero * count, _mean_scaling(x, y, count), y.zero)]


@prepares_int16("MEAN")
def _prepare_mean_int16(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, axes, (y,) = inputs[0], inputs[1], outputs
    geometry, count = _geometry(x, axes)
    return [call(sum_int16, x, y, *geometry, _mean_scaling(x, y, count))]


def _mean_scaling(x: Tensor, y: Tensor, count: int) -> tuple[int, int]:
    """Multiplier and shift: 1 / count joins the multiplier, with as many bits as fit (reference/reduce.h
    QuantizedMeanOrSum)."""
    multiplier, shift = quantize_multiplier(float(x.scale[0]) / float(y.scale[0]))
    headroom = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << headroom) // count, shift - headroom


@prepares("SUM")
def _prepare_sum(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, axes, (y,) = inputs[0], inputs[1], outputs
    geometry, count = _geometry(x, axes)
    if not x.is_int8:
        return [call(sum_float, as_float(x), y, *geometry, 1.0)]
    scaling = quantize_multiplier(float(x.scale[0]) / float(y.scale[0]))
    return [call(sum_int8, x, y, *geometry, x.zero * count, scaling, y.zero)]


@prepares("REDUCE_MAX")
def _prepare_max(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return [call(reduce_extreme, inputs[0], outputs[0], *_geometry(inputs[0], inputs[1])[0], 1)]


@prepares("REDUCE_MIN")
def _prepare_min(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return [call(reduce_extreme, inputs[0], outputs[0], *_geometry(inputs[0], inputs[1])[0], -1)]


@prepares("ARG_MAX")
def _prepare_arg_max(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    (axis,) = _axes(x, inputs[1])
    inner = int(np.prod(x.shape[axis + 1 :], dtype=np.int64))
    return [call(arg_max, x, y, x.size // (x.shape[axis] * inner), x.shape[axis], inner)]


def _axes(x: Tensor, axes: Tensor) -> list[int]:
    assert axes.data is not None
    return sorted({int(a) % len(x.shape) for a in axes.data.ravel()})


def _geometry(x: Tensor, axes: Tensor) -> tuple[tuple[tuple[Ints, ...], ...], int]:
    """((kept, reduced), number of reduced elements)."""
    strides, reduced = contiguous(x.shape), _axes(x, axes)
    kept = [a for a in range(len(x.shape)) if a not in reduced]
    parts = [collapsed([x.shape[a] for a in some], [strides[a] for a in some]) for some in (kept, reduced)]
    return (parts[0], parts[1]), int(np.prod([x.shape[a] for a in reduced], dtype=np.int64))


def cumulative_sum(x: Array, y: Array, sizes: Values, exclusive: Number, reverse: Number) -> None:
    """sizes: of the axes in front, the axis itself, and those behind. exclusive, reverse: 0 or 1."""
    outer, count, inner = sizes
    step = i32(-inner if reverse else inner)
    for o in range(outer):
        for i in range(inner):
            at = i32(i32(o * count) * inner + i + (i32(count - 1) * inner if reverse else i32(0)))
            y[at] = 0
            if not exclusive:
                y[at] = x[at]
            for _ in range(count - 1):
                last = at
                at = i32(at + step)
                y[at] = y[last] + (x[last] if exclusive else x[at])


@prepares("CUMSUM")
def _prepare_cumulative_sum(inputs: Inputs, outputs: Outputs, options: CumulativeOptions) -> list[Call]:
    x, (y,) = inputs[0], outputs
    assert inputs[1].data is not None
    axis = int(inputs[1].data.reshape(())) % len(x.shape)
    sizes = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    return [call(cumulative_sum, x, y, sizes, int(options.exclusive), int(options.reverse))]
