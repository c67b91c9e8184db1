"""Pools, and MEAN and SUM over the image, a vector of channels at a time.

Bit for bit as kernels/pooling.py and kernels/reduction.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.vectors import splat
from edgecompress_runtime.families.shared.words import (
    BYTE,
    FOUR,
    INT8_POINTER,
    LONG,
    PAIR,
    N,
    function,
    load,
    moved,
    store,
)
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_requantize import Rounding, channel_fields
from edgecompress_runtime.families.x86.x86_vectors import (
    BIAS,
    NUMBERS,
    clamped,
    constant,
    requantized,
    spread,
    widened,
    words,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.llvm.typed_numba import Tuple, Words, llvm_code
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor

EXACT = 2**24  # integers below it are float32 numbers, and so are their truncated quotients
# (builder, variant, sums or largest, extra) -> values to clamp
Finish = Callable[[ir.IRBuilder, Variant, ir.Value, Sequence[ir.Value]], ir.Value]


def _mean(b: ir.IRBuilder, variant: Variant, total: ir.Value, extra: Sequence[ir.Value]) -> ir.Value:
    """extra: (count,): total / count, halves away from zero."""
    zero, floats = constant(variant, 0), ir.VectorType(ir.FloatType(), variant.lanes)
    count = splat(b, extra[0], variant.lanes)
    positive = b.icmp_signed(">", total, zero)
    size = b.add(b.select(positive, total, b.sub(zero, total)), b.lshr(count, constant(variant, 1)))
    quotient = b.fptosi(b.fdiv(b.sitofp(size, floats), b.sitofp(count, floats)), words(variant))
    return b.select(positive, quotient, b.sub(zero, quotient))


def _rescaled(rounding: Rounding) -> Finish:
    """extra: of `spread`; the bias, too, is added here."""

    def finish(b: ir.IRBuilder, variant: Variant, total: ir.Value, extra: Sequence[ir.Value]) -> ir.Value:
        fields = spread(b, variant, extra)
        return requantized(b, variant, b.add(total, fields[BIAS]), fields, rounding)

    return finish


RESCALED = {rounding: _rescaled(rounding) for rounding in Rounding}


@cache
def _window_block(variant: Variant, finish: Finish | None, extras: int) -> Callable[..., Any]:
    """For Numba code: block(x, window, y, bounds, extra), the sums of a window, finished; the largest bytes without
    `finish`. window: rows, bytes from row to row, columns, bytes from column to column."""
    lanes = variant.lanes

    @llvm_code(types.void(INT8_POINTER, FOUR, INT8_POINTER, PAIR, types.UniTuple(N, extras)))
    def block(b: ir.IRBuilder, x: ir.Value, window: Tuple, y: ir.Value, bounds: Tuple, extra: Tuple) -> None:
        rows, row_step, columns, column_step = (b.sext(v, LONG) for v in window)
        kind = words(variant) if finish else ir.VectorType(BYTE, lanes)
        first = constant(variant, 0) if finish else kind([-128] * lanes)
        total = cgutils.alloca_once_value(b, first)
        with cgutils.for_range(b, rows) as row, cgutils.for_range(b, columns) as column:
            at = b.add(b.mul(row.index, row_step), b.mul(column.index, column_step))
            if finish:
                value = b.add(b.load(total), widened(b, x, at, lanes))
            else:
                larger = function(b, f"llvm.smax.v{lanes}i8", kind, kind, kind)
                value = b.call(larger, [b.load(total), load(b, x, at, kind, 1)])
            b.store(value, total)
        result = b.load(total)
        if finish:
            result = finish(b, variant, result, extra)
        result = clamped(b, result, bounds)
        store(b, b.trunc(result, ir.VectorType(BYTE, lanes)) if finish else result, y, LONG(0), 1)

    return block


@cache
def _windows(variant: Variant, finish: Finish | None, extras: int) -> Callable[..., None]:
    lanes, counted = variant.lanes, finish is _mean
    block = _window_block(variant, finish, extras)

    def kernel(tensors: Tuple, geometry: Tuple, bounds: Words, extra: Words) -> None:
        """tensors: x, y. geometry: x's shape, y's shape, window, strides, padding in front. extra: of `finish`; a
        mean's is the number of values in the window."""
        x, y = tensors
        x_shape, y_shape, kernel, strides, pads = geometry
        images, height, width, channels = x_shape
        _, out_h, out_w, _ = y_shape
        for n in range(images):
            for out_y in range(out_h):
                top = i32(out_y * strides[0] - pads[0])
                first_y = max(top, i32(0))
                rows = i32(min(i32(top + kernel[0]), height) - first_y)
                for out_x in range(out_w):
                    left = i32(out_x * strides[1] - pads[1])
                    first_x = max(left, i32(0))
                    columns = i32(min(i32(left + kernel[1]), width) - first_x)
                    source = moved(x, i32(i32(i32(n * height + first_y) * width + first_x) * channels))
                    target = moved(y, i32(i32(i32(n * out_h + out_y) * out_w + out_x) * channels))
                    last = (i32(rows * columns),) if counted else extra
                    window = rows, i32(width * channels), columns, channels
                    for start in range(i32(0), channels, i32(lanes)):
                        c = min(i32(start), i32(channels - lanes))  # the last again, if need be
                        block(moved(source, c), window, moved(target, c), bounds, last)

    kernel.__name__ = "windows"
    return kernel


def prepare_pool(
    kind: str, variant: Variant, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
) -> list[Step] | None:
    """None for float, a single channel, and windows whose sums float32 does not hold."""
    x, (y,) = inputs[0], outputs
    if not x.is_int8:
        return None
    (call,) = KERNELS[kind](inputs, outputs, options)
    arguments: tuple[Any, ...] = call.arguments
    _, _, (x_shape, y_shape), (kernel, strides, pads), bounds = arguments
    mean_of = kind == "AVERAGE_POOL_2D"
    chosen = _narrowed(variant, x.shape[3], variant.lanes if mean_of else variant.bytes)
    if chosen is None or 200 * kernel[0] * kernel[1] >= EXACT:
        return None
    geometry = x_shape, y_shape, kernel, strides, pads
    return [Step(_windows(chosen, _mean if mean_of else None, 1), ((x, y), geometry, bounds, (0,)))]


def prepare_reduction(
    kind: str, variant: Variant, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
) -> list[Step] | None:
    """Only over height and width of images."""
    x, axes, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or len(x.shape) != 4 or axes.data is None:
        return None
    if sorted(int(a) % 4 for a in axes.data.ravel()) != [1, 2]:
        return None
    images, height, width, channels = x.shape
    chosen = _narrowed(variant, channels, variant.lanes)
    (call,) = KERNELS[kind](inputs, outputs, options)
    arguments: tuple[Any, ...] = call.arguments
    *_, x_offset, (multiplier, shift), y_zero = arguments
    one = np.ones(1, np.int64)
    found = channel_fields(-x_offset * one, 256 * height * width * one, (multiplier * one, shift * one), y_zero)
    if chosen is None or found is None:
        return None
    geometry = x.shape, (images, 1, 1, channels), (height, width), (1, 1), (0, 0)
    kernel = _windows(chosen, RESCALED[found.rounding], NUMBERS)
    return [Step(kernel, ((x, y), geometry, (-128, 127), found.numbers()))]


def _narrowed(variant: Variant, channels: int, lanes: int) -> Variant | None:
    """With at most as many lanes as channels."""
    return None if channels < 2 else replace(variant, lanes=min(lanes, 1 << (channels.bit_length() - 1)))
