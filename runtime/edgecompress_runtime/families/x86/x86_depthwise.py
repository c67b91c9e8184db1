"""DEPTHWISE_CONV_2D with one filter a channel: a vector holds channels, a block some pixels.

Values and weights are int16: x - zero point is within 255 and a product within 32,640, so it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from edgecompress_runtime.families.shared.division import divided, part
from edgecompress_runtime.families.shared.division import rows as divided_rows
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.words import (
    HALF,
    INT8_POINTER,
    INT32_POINTER,
    LONG,
    PAIR,
    PLACE,
    N,
    load,
    moved,
)
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_copies import moved_words, padded_copy
from edgecompress_runtime.families.x86.x86_requantize import Rounding, channel_fields, in_order
from edgecompress_runtime.families.x86.x86_vectors import BIAS, FIELDS, Piece, requantized, store_clamped, words
from edgecompress_runtime.kernels.arithmetic import activation_range, i32
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Words, llvm_code
from edgecompress_runtime.options import DepthwiseOptions
from edgecompress_runtime.plan import Tensor

ELEMENT = 2
DEARER = 4  # than a convolution's multiplications


@cache
def _taps_block(variant: Variant, pixels: int, count: int, rounding: Rounding) -> Callable[..., Any]:
    """For Numba code: block(source, window, weights, target, bounds), `count` channels of some pixels. window: (rows,
    row step, columns, column step, bytes from one tap's weights to the next's). The rest: as in `dot_block`."""
    lanes, halves = variant.lanes, ir.VectorType(HALF, variant.lanes)

    @llvm_code(types.void(PLACE, types.UniTuple(N, 5), types.Tuple([INT8_POINTER, INT32_POINTER]), PLACE, PAIR))
    def block(b: ir.IRBuilder, source: Tuple, window: Tuple, weights: Tuple, target: Tuple, bounds: Tuple) -> None:
        (x, x_step), (w, records), (y, y_step) = source, weights, target
        x_step = b.sext(x_step, LONG)
        rows, row_step, columns, column_step, w_step = (b.sext(v, LONG) for v in window)
        y_step = b.sext(y_step, LONG)
        fields = [load(b, records, 4 * lanes * number, words(variant), 4) for number in range(FIELDS)]
        sums = [cgutils.alloca_once_value(b, fields[BIAS]) for _ in range(pixels)]
        with cgutils.for_range(b, rows) as row, cgutils.for_range(b, columns) as column:
            tap = b.add(b.mul(row.index, columns), column.index)
            start = b.add(b.mul(row.index, row_step), b.mul(column.index, column_step))
            cells = load(b, w, b.mul(tap, w_step), halves, 2)
            for p, total in enumerate(sums):
                values = load(b, x, b.add(start, b.mul(x_step, LONG(p))), halves, 2)
                b.store(b.add(b.load(total), b.sext(b.mul(values, cells), words(variant))), total)
        pieces = (
            Piece(requantized(b, variant, b.load(total), fields, rounding), p, 0, count) for p, total in enumerate(sums)
        )
        store_clamped(b, variant, pieces, (y, y_step), bounds)

    return block


@cache
def _depthwise(variant: Variant, pixels: int, tail: int, rounding: Rounding) -> Callable[..., None]:
    """tail: channels of the last vector."""
    lanes = variant.lanes
    copied = padded_copy(variant, ELEMENT)
    block, last_block = (_taps_block(variant, pixels, count, rounding) for count in (lanes, tail))

    def kernel(tensors: Tuple, padded: Pointer, copy: Tuple, geometry: Tuple, bounds: Words) -> None:
        """tensors: x, weights, records, y. copy: images, an image's (height, width, channels), size of the padded
        image, padding in front, zero point. geometry: window, out, strides, vectors. window: as in `_taps_block`. out:
        (height, width). strides: bytes from row to row and from pixel to pixel."""
        x, w, records, y = tensors
        images, image, size, pads, zero = copy
        window, out, strides, vectors = geometry
        channels = image[2]
        for n in range(images):
            copied(moved(x, i32(n * image[0] * image[1] * channels)), padded, image, size, pads, zero)
            for out_y in range(out[0]):
                row = moved(y, i32(i32(n * out[0] + out_y) * out[1] * channels))
                for number in range(i32(i32(out[1] + pixels - 1) // i32(pixels))):
                    out_x = min(i32(number * pixels), i32(out[1] - pixels))  # the last again, if need be
                    start = moved(padded, i32(out_y * strides[0] + out_x * strides[1]))
                    target = moved(row, i32(out_x * channels))
                    for v in range(vectors):
                        channel = i32(v * lanes)
                        source = moved(start, i32(channel * 2)), strides[1]
                        weights = moved(w, i32(channel * 2)), moved_words(records, i32(v * lanes * FIELDS))
                        if v < vectors - 1:
                            block(source, window, weights, (moved(target, channel), channels), bounds)
                        else:
                            last_block(source, window, weights, (moved(target, channel), channels), bounds)

    kernel.__name__ = "depthwise"
    return kernel


def prepare_depthwise(
    variant: Variant, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: DepthwiseOptions
) -> list[Step] | None:
    """None for several filters a channel, and where the arithmetic would not fit."""
    x, w, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or w.data is None or x.shape[3] != y.shape[3] or y.size == 0:
        return None
    (images, height, width, channels), (_, kernel_h, kernel_w, _) = x.shape, w.shape
    stride = options.strides
    dilation = options.dilations
    pads = padding(options.padding, (height, width), y.shape[1:3], (kernel_h, kernel_w), stride, dilation)
    bias, taps = bias_of(inputs, y), w.data.reshape(-1, channels)
    values = np.asarray(bias.data if isinstance(bias, Tensor) else bias).reshape(-1).astype(np.int64)
    values = np.broadcast_to(values, channels) if values.any() else np.zeros(channels, np.int64)
    largest = np.abs(values) + max(127 - x.zero, 128 + x.zero) * np.abs(taps.astype(np.int64)).sum(0)
    bounds = activation_range(options, y)
    found = channel_fields(values, largest, channel_multipliers(x, w, y), y.zero, low=bounds[0], fuses=variant.fuses)
    if found is None:
        return None
    vectors = -(-channels // variant.lanes)
    wide = np.zeros((len(taps), vectors * variant.lanes), np.int16)
    wide[:, :channels] = taps
    records = found.records(variant.lanes, in_order(1, channels, variant.lanes))
    pixel = channels * ELEMENT
    pixels = min(y.shape[2], (variant.registers - 4) // 2)
    tail = channels - (vectors - 1) * variant.lanes
    steps = []
    work, window = DEARER * y.size * len(taps), (kernel_h, stride[0], dilation[0], pads[0])
    for rows in divided_rows(threads, work, x.shape, y.shape, window):
        out = rows.last - rows.first, y.shape[2]
        size = tuple((o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, (kernel_h, kernel_w), dilation))
        row = size[1] * pixel
        x_at, y_at = part(x, rows.start * width * channels), part(y, rows.first * y.shape[2] * channels)
        tensors = x_at, wide.reshape(-1).view(np.int8), records, y_at
        copy = images, (rows.end - rows.start, width, channels), size, (rows.pad, pads[1]), x.zero
        taps_at = kernel_h, dilation[0] * row, kernel_w, dilation[1] * pixel, wide.shape[1] * ELEMENT
        geometry = taps_at, out, (stride[0] * row, stride[1] * pixel), vectors
        arguments = tensors, Scratch(size[0] * row + variant.bytes), copy, geometry, bounds
        steps.append(Step(_depthwise(variant, pixels, tail, found.rounding), arguments))
    return [divided(steps)]
