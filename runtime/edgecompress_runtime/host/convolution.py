"""CONV_2D and FULLY_CONNECTED in blocks (blocks.py): no im2col.

The image is copied once, with its padding around it and in the form that a step reads; there a window's rows are
runs of bytes. A fully connected layer, and a 1x1 convolution of stride 1, is one row of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from edgecompress_runtime.host.blocks import Shape, dot_block, sparse_block
from edgecompress_runtime.host.copies import blank_row, copy_row, moved_words
from edgecompress_runtime.host.layout import (
    Cut,
    arranged,
    cut,
    dense_time,
    nonzero_steps,
    sparse_cut,
    sparse_time,
    unrolled,
)
from edgecompress_runtime.host.requantise import channel_fields, grouped
from edgecompress_runtime.host.variants import Variant
from edgecompress_runtime.host.vectors import FIELDS
from edgecompress_runtime.kernels.arithmetic import activation_range, i32, quantize_multipliers
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.matmul import product_scale
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.primitives.step import Scratch, Step
from edgecompress_runtime.primitives.words import moved

Options = Mapping[str, Any]


@cache
def padded_copy(variant: Variant, element: int) -> Callable[..., Any]:
    """An image [height, width, channels] in the middle of `size` (height, width), the zero point around it."""
    from numba import njit

    copy, blank = copy_row(variant, element), blank_row(element)

    @njit(inline="always")
    def copied(x, padded, image, size, pads, zero):
        height, width, channels = image
        inside = min(width, i32(size[1] - pads[1]))
        row_step = i32(size[1] * channels * element)
        if inside == size[1] and inside == width and pads[0] == 0 and size[0] <= height:
            copy(x, padded, i32(size[0] * width * channels), zero)
        else:
            left, right = i32(pads[1] * channels), i32(i32(size[1] - pads[1] - inside) * channels)
            for row in range(size[0]):
                in_y = i32(row - pads[0])
                target = moved(padded, i32(row * row_step))
                if 0 <= in_y < height:
                    blank(target, left, zero)
                    middle = moved(target, i32(left * element))
                    copy(moved(x, i32(in_y * width * channels)), middle, i32(inside * channels), zero)
                    blank(moved(middle, i32(inside * channels * element)), right, zero)
                else:
                    blank(target, i32(size[1] * channels), zero)

    return copied


@cache
def blocked(variant: Variant, body: Shape, last: Shape) -> Callable[..., None]:
    """The kernel for blocks of these shapes; `last` for the last channels of a group."""
    element, lanes = variant.element, variant.lanes
    copied, block, last_block = padded_copy(variant, element), dot_block(variant, body), dot_block(variant, last)
    pixels, block_channels, block_records = body.pixels, body.vectors * lanes, body.vectors * FIELDS * lanes
    same = body == last

    def kernel(
        x, w, records, y, padded, images, image, size, pads, zero, groups, window, out, strides, low, high
    ):
        """image: (height, width, channels). size: of the padded image. groups: (number, bytes of a pixel, bytes of
        weights, records). window: (rows, row step, columns, column step, turns). out: (height, width, channels,
        channels of a group, blocks of a group, bytes of a block's weights). strides: bytes from row to row and
        from pixel to pixel."""
        rows, row_step, columns, column_step, turns = window
        out_h, out_w, out_channels, group_channels, blocks, block_weights = out
        for n in range(images):
            copied(moved(x, i32(n * image[0] * image[1] * image[2])), padded, image, size, pads, zero)
            for g in range(groups[0]):
                for j in range(blocks):
                    weights = moved(w, i32(g * groups[2] + j * block_weights))
                    fields = moved_words(records, i32(g * groups[3] + j * block_records))
                    for out_y in range(out_h):
                        source = moved(padded, i32(out_y * strides[0] + g * groups[1]))
                        channel = i32(g * group_channels + j * block_channels)
                        row = moved(y, i32(i32(n * out_h + out_y) * out_w * out_channels + channel))
                        for number in range(i32(i32(out_w + pixels - 1) // i32(pixels))):
                            out_x = min(i32(number * pixels), i32(out_w - pixels))  # the last again, if need be
                            start = moved(source, i32(out_x * strides[1]))
                            target = moved(row, i32(out_x * out_channels))
                            if same or j < blocks - 1:
                                block(start, strides[1], rows, row_step, columns, column_step, turns, weights, fields,
                                      target, out_channels, low, high)  # fmt: skip
                            else:
                                last_block(start, strides[1], rows, row_step, columns, column_step, turns, weights,
                                           fields, target, out_channels, low, high)  # fmt: skip

    kernel.__name__ = f"blocked_{body.label}" + ("" if same else f"_{last.label}")
    return kernel


@cache
def sparse(variant: Variant, shape: Shape, tail: int, sums: int) -> Callable[..., None]:
    """The kernel that takes only the steps in which a vector of channels has weights that are not zero.

    tail: channels of the last vector. sums: of `blocks.sparse_block`.
    """
    lanes, pixels = variant.lanes, shape.pixels
    copied = padded_copy(variant, variant.element)
    block, last_block = (sparse_block(variant, replace(shape, tail=count), sums) for count in (lanes, tail))

    def kernel(x, w, places, starts, records, y, padded, images, image, size, pads, zero, out, strides, low, high):
        """places, starts: of `layout.nonzero_steps`. The rest: as in `blocked`."""
        out_h, out_w, out_channels = out
        vectors = i32(i32(out_channels + lanes - 1) // i32(lanes))
        for n in range(images):
            copied(moved(x, i32(n * image[0] * image[1] * image[2])), padded, image, size, pads, zero)
            for v in range(vectors):
                first = starts[v]
                steps = i32(starts[i32(v + 1)] - first)
                weights, taken = moved(w, i32(first * lanes * 4)), moved_words(places, first)
                fields = moved_words(records, i32(v * lanes * FIELDS))
                for out_y in range(out_h):
                    source = moved(padded, i32(out_y * strides[0]))
                    row = moved(y, i32(i32(n * out_h + out_y) * out_w * out_channels + v * lanes))
                    for number in range(i32(i32(out_w + pixels - 1) // i32(pixels))):
                        out_x = min(i32(number * pixels), i32(out_w - pixels))  # the last again, if need be
                        start = moved(source, i32(out_x * strides[1]))
                        target = moved(row, i32(out_x * out_channels))
                        if v < vectors - 1:
                            block(start, strides[1], taken, steps, weights, fields, target, out_channels, low, high)
                        else:
                            last_block(start, strides[1], taken, steps, weights, fields, target, out_channels, low, high)

    kernel.__name__ = f"sparse_{shape.label}_{tail}_{sums}"
    return kernel


def prepare_conv(variant: Variant, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
    x, w, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or w.data is None:
        return None
    stride = options["strideH"], options["strideW"]
    dilation = options.get("dilationHFactor") or 1, options.get("dilationWFactor") or 1
    pads = padding(options["padding"], x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
    scaling = channel_multipliers(x, w, y)
    bounds = activation_range(options, y)
    return _steps(variant, inputs, y, w.data, scaling, stride, dilation, pads, bounds, once=False)


def prepare_fully_connected(
    variant: Variant, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
) -> list[Step] | None:
    x, w, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or w.data is None or w.zero_point.any():
        return None
    units, depth = w.shape
    scaling = channel_multipliers(x, w, y) if w.scale.size > 1 else quantize_multipliers([product_scale(x, w, y)] * units)
    flat = replace(x, shape=(1, 1, x.size // depth, depth)), replace(y, shape=(1, 1, x.size // depth, units))
    weights = w.data.reshape(units, 1, 1, depth)
    steps = _steps(variant, [flat[0], replace(w, shape=weights.shape), *inputs[2:]], flat[1], weights, scaling, (1, 1),
                   (1, 1), (0, 0), activation_range(options, y), once=True)  # fmt: skip
    return steps and [_with_tensors(step, dict(zip(flat, (x, y)))) for step in steps]


def _with_tensors(step: Step, tensors: Mapping[Tensor, Tensor]) -> Step:
    return replace(step, arguments=tuple(tensors.get(a, a) if isinstance(a, Tensor) else a for a in step.arguments))


def _steps(
    variant: Variant, inputs: Sequence[Any], y: Tensor, w: np.ndarray, scaling: tuple[np.ndarray, np.ndarray],
    stride: tuple[int, int], dilation: tuple[int, int], pads: tuple[int, int], bounds: tuple[int, int], *, once: bool,
) -> list[Step] | None:  # fmt: skip
    x, bias = inputs[0], bias_of(inputs)
    (out_channels, kernel_h, kernel_w, depth), (images, height, width, channels) = w.shape, x.shape
    _, out_h, out_w, _ = y.shape
    groups = channels // depth
    fields = _fields(variant, x, w, bias.data if isinstance(bias, Tensor) else bias, *scaling, y.zero, once=once)
    if fields is None or y.size == 0:
        return None
    records, plain = fields
    if (kernel_h, kernel_w, *stride, *pads) == (1, 1, 1, 1, 0, 0):
        images, height, width, out_h, out_w = 1, 1, images * height * width, 1, images * out_h * out_w
    size = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip((out_h, out_w), stride, (kernel_h, kernel_w), dilation)]
    # a row of the window is one run where its pixels follow one another
    columns = 1 if dilation[1] == 1 and groups == 1 else kernel_w
    run = kernel_w * depth // columns
    group_channels = out_channels // groups
    split = w.reshape(groups, group_channels, kernel_h * columns, run)
    steps = -(-run // variant.products)
    e = variant.element
    row_bytes, pixel_bytes = size[1] * channels * e, channels * e
    records_ = grouped(records.reshape(FIELDS, groups, group_channels), variant.lanes)
    start = (images, (height, width, channels), tuple(size), pads, x.zero)
    strides = stride[0] * row_bytes, stride[1] * pixel_bytes
    scratch = Scratch(size[0] * row_bytes + variant.bytes)
    tail = group_channels - (-(-group_channels // variant.lanes) - 1) * variant.lanes
    chosen = cut(variant, out_w, group_channels)
    if groups == 1:
        apart = [np.arange(n) * s for n, s in ((kernel_h, dilation[0] * row_bytes), (columns, dilation[1] * pixel_bytes), (steps, 4))]
        places = (apart[0][:, None, None] + apart[1][:, None] + apart[2]).reshape(-1)
        few = sparse_cut(variant, out_w)
        weights, taken, starts = nonzero_steps(variant, split[0], places, few.sums)
        if starts[-1] * sparse_time(variant, out_w, few) < places.size * dense_time(variant, out_w, chosen):
            shape = Shape(few.pixels, 1, variant.lanes, 1, once, plain)
            arguments = (x, weights, taken, starts, records_, y, scratch, *start, (out_h, out_w, out_channels), strides, *bounds)
            return [Step(sparse(variant, shape, tail, few.sums), arguments)]
    weights = arranged(variant, split, chosen)
    body, last = _shapes(variant, chosen, tail, steps, once, plain)
    arguments = (
        x, weights, records_, y, scratch, *start,
        (groups, depth * e, weights.nbytes // groups, -(-group_channels // variant.lanes) * FIELDS * variant.lanes),
        (kernel_h, dilation[0] * row_bytes, columns, dilation[1] * pixel_bytes, steps // body.unroll),
        (out_h, out_w, out_channels, group_channels, chosen.blocks, kernel_h * columns * steps * chosen.vectors * variant.bytes),
        strides, *bounds,
    )  # fmt: skip
    return [Step(blocked(variant, body, last), arguments)]


def _shapes(variant: Variant, chosen: Cut, tail: int, steps: int, once: bool, plain: bool) -> tuple[Shape, Shape]:
    unroll = unrolled(steps, chosen.pixels * chosen.vectors)
    body = Shape(chosen.pixels, chosen.vectors, variant.lanes, unroll, once, plain)
    last = replace(body, vectors=chosen.last, tail=tail)
    return (last, last) if chosen.blocks == 1 else (body, last)


def _fields(
    variant: Variant, x: Tensor, w: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: int,
    *, once: bool,
) -> tuple[np.ndarray, bool] | None:  # fmt: skip
    rows = w.reshape(w.shape[0], -1).astype(np.int64)
    values = bias.reshape(-1).astype(np.int64)
    largest = np.abs(values) + max(127 - x.zero, 128 + x.zero) * np.abs(rows).sum(1)
    if variant.products == 4:  # uint8: x + 128
        values = values - (128 + x.zero) * rows.sum(1)
    return channel_fields(values, largest, multiplier, shift, zero, once=once)
