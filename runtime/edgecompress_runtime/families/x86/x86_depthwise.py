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
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.division import divided, part
from edgecompress_runtime.families.shared.division import rows as divided_rows
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.words import HALF, INT8_POINTER, INT32_POINTER, LONG, load, moved
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_copies import moved_words, padded_copy
from edgecompress_runtime.families.x86.x86_requantize import Rounding, channel_fields, in_order
from edgecompress_runtime.families.x86.x86_vectors import BIAS, FIELDS, Piece, requantised, store_clamped, words
from edgecompress_runtime.kernels.arithmetic import activation_range, i32
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import DepthwiseOptions
from edgecompress_runtime.plan import Tensor

ELEMENT = 2
DEARER = 4  # than a convolution's multiplications


@cache
def taps_block(variant: Variant, pixels: int, count: int, rounding: Rounding) -> Callable[..., Any]:
    """block(x, x_step, rows, row_step, columns, column_step, w, w_step, records, y, y_step, low, high): `count`
    channels of some pixels. Steps in bytes; w_step: from one tap's weights to the next's."""
    lanes, halves = variant.lanes, ir.VectorType(HALF, variant.lanes)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, w, records, y, low, high = (args[i] for i in (0, 6, 8, 9, 11, 12))
        x_step, rows, row_step, columns, column_step, w_step, y_step = (
            b.sext(args[i], LONG) for i in (1, 2, 3, 4, 5, 7, 10)
        )
        fields = [load(b, records, 4 * lanes * number, words(variant), 4) for number in range(FIELDS)]
        sums = [cgutils.alloca_once_value(b, fields[BIAS]) for _ in range(pixels)]
        with cgutils.for_range(b, rows) as row, cgutils.for_range(b, columns) as column:
            tap = b.add(b.mul(row.index, columns), column.index)
            start = b.add(b.mul(row.index, row_step), b.mul(column.index, column_step))
            weights = load(b, w, b.mul(tap, w_step), halves, 2)
            for p, total in enumerate(sums):
                values = load(b, x, b.add(start, b.mul(x_step, LONG(p))), halves, 2)
                b.store(b.add(b.load(total), b.sext(b.mul(values, weights), words(variant))), total)
        pieces = (
            Piece(requantised(b, variant, b.load(total), fields, rounding), p, 0, count) for p, total in enumerate(sums)
        )
        store_clamped(b, variant, pieces, y, y_step, low, high)
        return context.get_dummy_value()

    @intrinsic
    def block(typingctx, x, x_step, rows, row_step, columns, column_step, w, w_step, records, y, y_step, low, high):
        number = types.int32
        kinds = (INT8_POINTER, *[number] * 5, INT8_POINTER, number, INT32_POINTER, INT8_POINTER, *[number] * 3)
        return types.void(*kinds), generate

    return block


@cache
def depthwise(variant: Variant, pixels: int, tail: int, rounding: Rounding) -> Callable[..., None]:
    """tail: channels of the last vector."""
    lanes = variant.lanes
    copied = padded_copy(variant, ELEMENT)
    block, last_block = (taps_block(variant, pixels, count, rounding) for count in (lanes, tail))

    def kernel(x, w, records, y, padded, images, image, size, pads, zero, window, out, strides, vectors, low, high):
        """image: (height, width, channels). size: of the padded image. window: (rows, row step, columns, column step,
        bytes of a tap). out: (height, width). strides: bytes from row to row and from pixel to pixel."""
        rows, row_step, columns, column_step, w_step = window
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
                        source, weights = moved(start, i32(channel * 2)), moved(w, i32(channel * 2))
                        fields = moved_words(records, i32(v * lanes * FIELDS))
                        if v < vectors - 1:
                            block(
                                source,
                                strides[1],
                                rows,
                                row_step,
                                columns,
                                column_step,
                                weights,
                                w_step,
                                fields,
                                moved(target, channel),
                                channels,
                                low,
                                high,
                            )
                        else:
                            last_block(
                                source,
                                strides[1],
                                rows,
                                row_step,
                                columns,
                                column_step,
                                weights,
                                w_step,
                                fields,
                                moved(target, channel),
                                channels,
                                low,
                                high,
                            )

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
    bias, taps = bias_of(inputs), w.data.reshape(-1, channels)
    values = (bias.data if isinstance(bias, Tensor) else bias).reshape(-1).astype(np.int64)
    values = np.broadcast_to(values, channels) if values.any() else np.zeros(channels, np.int64)
    largest = np.abs(values) + max(127 - x.zero, 128 + x.zero) * np.abs(taps.astype(np.int64)).sum(0)
    bounds = activation_range(options, y)
    found = channel_fields(values, largest, *channel_multipliers(x, w, y), y.zero, low=bounds[0], fuses=variant.fuses)
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
    for rows in divided_rows(
        threads, DEARER * y.size * len(taps), x.shape, y.shape, kernel_h, stride[0], dilation[0], pads[0]
    ):
        out = rows.last - rows.first, y.shape[2]
        size = tuple((o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, (kernel_h, kernel_w), dilation))
        row = size[1] * pixel
        arguments = (
            part(x, rows.start * width * channels),
            wide.reshape(-1).view(np.int8),
            records,
            part(y, rows.first * y.shape[2] * channels),
            Scratch(size[0] * row + variant.bytes),
            images,
            (rows.end - rows.start, width, channels),
            size,
            (rows.pad, pads[1]),
            x.zero,
            (kernel_h, dilation[0] * row, kernel_w, dilation[1] * pixel, wide.shape[1] * ELEMENT),
            out,
            (stride[0] * row, stride[1] * pixel),
            vectors,
            *bounds,
        )
        steps.append(Step(depthwise(variant, pixels, tail, found.rounding), arguments))
    return [divided(steps)]
