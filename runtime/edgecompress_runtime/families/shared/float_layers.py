"""CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED and BATCH_MATMUL of float32: which kernel, and its arguments.

The image is copied once, with zeros around it; where nothing lies around it, it is read as it is. A fully connected
layer, and a 1x1 convolution of stride 1, is one row of pixels. Weights with values that are no numbers have ordinary
kernels: times a zero of the padding they are no number either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.division import LEAST, divided, part, ranges, rows
from edgecompress_runtime.families.shared.float_blocks import (
    WIDTH,
    FloatUnit,
    float_block,
    float_taps,
    moved_floats,
    padded_floats,
)
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.kernels.arithmetic import dequantized, float_activation_range, i32
from edgecompress_runtime.kernels.convolution import bias_of
from edgecompress_runtime.kernels.matmul import matrix_geometry
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words
from edgecompress_runtime.options import BatchMatmulOptions, ConvolutionOptions, DepthwiseOptions, FullyConnectedOptions
from edgecompress_runtime.plan import Tensor

Pair = tuple[int, int]
MOST_VECTORS, SUMS = 4, 12  # of a block; sums that hide how long an addition takes
PIXELS = (16, 12, 8, 6, 4, 3, 2, 1)  # of a block: few kinds, since each has a kernel of its own
START = 2.0  # of a step of a block, in the time of a vector of products


@dataclass(frozen=True)
class Cut:
    """pixels, vectors: of a block. The last block of a group has `last` vectors, and its last one `tail` channels.
    unroll: steps in a turn of the loop."""

    pixels: int
    vectors: int
    last: int
    tail: int
    unroll: int

    def blocks(self, unit: FloatUnit, channels: int) -> int:
        """Of a group of so many channels."""
        return -(-channels // (self.vectors * unit.lanes))


def cut(unit: FloatUnit, pixels: int, channels: int, depth: int) -> Cut:
    """Of a row of so many pixels, with as many channels in a group, and runs of `depth` inputs."""
    total = -(-channels // unit.lanes)
    vectors = min(total, max(MOST_VECTORS if pixels > 4 else SUMS // pixels, 1))
    if unit.registers < 20:
        vectors = min(vectors, 2 if pixels > 4 else 6)
    blocks = -(-total // vectors)
    vectors = -(-total // blocks)
    unroll = next(n for n in (4, 3, 2, 1) if depth % n == 0)
    tail = channels - (total - 1) * unit.lanes
    most = (unit.registers - vectors - 2) // vectors
    return Cut(_fitting(pixels, most, vectors), vectors, total - (blocks - 1) * vectors, tail, unroll)


def _fitting(pixels: int, most: int, vectors: int) -> int:
    """Pixels of a block: the last block of a row takes pixels again that one before it had, as few as may be."""
    return min(
        (n for n in PIXELS if n <= min(pixels, most) or n == 1), key=lambda n: -(-pixels // n) * (n * vectors + START)
    )


@cache
def _blocked(unit: FloatUnit, cut: Cut, copies: bool) -> Callable[..., None]:
    last_block = float_block(unit, cut.pixels, cut.last, cut.tail, cut.unroll)
    block = float_block(unit, cut.pixels, cut.vectors, unit.lanes, cut.unroll)
    copied, pixels, lanes, same = padded_floats(unit), cut.pixels, unit.lanes * cut.vectors, block is last_block

    def kernel(tensors: Tuple, padded: Pointer, copy: Tuple, geometry: Tuple, bounds: Words) -> None:
        """tensors: x, weights, biases, y. copy: images, an image's (height, width, channels), size of the padded image,
        padding in front. geometry: groups, window, out, strides; all steps in floats. groups: (number, channels read,
        weights, biases). window: (rows, row step, columns, column step, turns). out: (height, width, channels, channels
        of a group, blocks, weights of a block). strides: from row to row and from pixel to pixel."""
        x, w, bias, y = tensors
        images, image, size, pads = copy
        groups, window, out, strides = geometry
        out_h, out_w, out_channels, group_channels, blocks, block_weights = out
        for n in range(images):
            source = moved_floats(x, i32(n * image[0] * image[1] * image[2]))
            if copies:
                copied(source, padded, image, size, pads)
                source = padded
            for g in range(groups[0]):
                for j in range(blocks):
                    weights = moved_floats(w, i32(g * groups[2] + j * block_weights))
                    ends = moved_floats(bias, i32(g * groups[3] + j * lanes))
                    for out_y in range(out_h):
                        line = moved_floats(source, i32(out_y * strides[0] + g * groups[1]))
                        channel = i32(g * group_channels + j * lanes)
                        row = moved_floats(y, i32(i32(n * out_h + out_y) * out_w * out_channels + channel))
                        for number in range(i32(i32(out_w + pixels - 1) // i32(pixels))):
                            out_x = min(i32(number * pixels), i32(out_w - pixels))  # the last again, if need be
                            start = moved_floats(line, i32(out_x * strides[1])), strides[1]
                            target = moved_floats(row, i32(out_x * out_channels)), out_channels
                            if same or j < blocks - 1:
                                block(start, window, (weights, ends), target, bounds)
                            else:
                                last_block(start, window, (weights, ends), target, bounds)

    kernel.__name__ = "blocked_float_" + "_".join(map(str, (*vars(cut).values(), int(copies))))
    return kernel


@cache
def _depthwise(unit: FloatUnit, pixels: int, tail: int) -> Callable[..., None]:
    block, last_block = (float_taps(unit, pixels, count) for count in (unit.lanes, tail))
    copied, lanes = padded_floats(unit), unit.lanes

    def kernel(tensors: Tuple, padded: Pointer, copy: Tuple, geometry: Tuple, bounds: Words) -> None:
        """Like that of `_blocked`. geometry: window, as in `float_taps`, out (height, width), strides, vectors."""
        x, w, bias, y = tensors
        images, image, size, pads = copy
        window, out, strides, vectors = geometry
        channels = image[2]
        for n in range(images):
            copied(moved_floats(x, i32(n * image[0] * image[1] * channels)), padded, image, size, pads)
            for out_y in range(out[0]):
                row = moved_floats(y, i32(i32(n * out[0] + out_y) * out[1] * channels))
                for number in range(i32(i32(out[1] + pixels - 1) // i32(pixels))):
                    out_x = min(i32(number * pixels), i32(out[1] - pixels))  # the last again, if need be
                    start = moved_floats(padded, i32(out_y * strides[0] + out_x * strides[1]))
                    target = moved_floats(row, i32(out_x * channels))
                    for v in range(vectors):
                        channel = i32(v * lanes)
                        source, end = (moved_floats(start, channel), strides[1]), moved_floats(target, channel)
                        weights = moved_floats(w, channel), moved_floats(bias, channel)
                        if v < vectors - 1:
                            block(source, window, weights, (end, channels), bounds)
                        else:
                            last_block(source, window, weights, (end, channels), bounds)

    kernel.__name__ = f"depthwise_float_{pixels}_{tail}"
    return kernel


@cache
def _products(unit: FloatUnit, cut: Cut) -> Callable[..., None]:
    last_block = float_block(unit, cut.pixels, cut.last, cut.tail, cut.unroll)
    block = float_block(unit, cut.pixels, cut.vectors, unit.lanes, cut.unroll)
    pixels, unroll, same = cut.pixels, cut.unroll, block is last_block
    last, lanes = cut.last * unit.lanes, cut.vectors * unit.lanes

    def kernel(tensors: Tuple, arranged: Pointer, sizes: Words, strides: Tuple, blocks: Word) -> None:
        """tensors: a, b, zeros in place of biases, y. arranged: room for a matrix as `_arranged` makes it, of so many
        blocks. sizes, strides: as of `kernels.matmul.batch_matmul`."""
        a, b, zeros, y = tensors
        n0, n1, n2, rows, columns, depth = sizes
        a_strides, b_strides = strides
        window = i32(1), i32(0), i32(1), i32(0), i32(depth // unroll)
        bounds = np.float32(-np.inf), np.float32(np.inf)
        for i in range(n0):
            for j in range(n1):
                for k in range(n2):
                    left = moved_floats(a, i32(i * a_strides[0] + j * a_strides[1] + k * a_strides[2]))
                    right = moved_floats(b, i32(i * b_strides[0] + j * b_strides[1] + k * b_strides[2]))
                    target = moved_floats(y, i32(((i * n1 + j) * n2 + k) * rows * columns))
                    for number in range(blocks):
                        width = lanes if number < blocks - 1 else last
                        first = i32(number * lanes)
                        inside = i32(min(width, columns - first))
                        for c in range(depth):
                            cells = moved_floats(arranged, i32(number * lanes * depth + c * width))
                            taken = moved_floats(right, i32(first * b_strides[3] + c * b_strides[4]))
                            for o in range(inside):
                                cells[o] = taken[i32(o * b_strides[3])]
                            for o in range(inside, width):
                                cells[o] = np.float32(0)
                    for number in range(blocks):
                        weights = moved_floats(arranged, i32(number * lanes * depth)), zeros
                        for place in range(i32(i32(rows + pixels - 1) // i32(pixels))):
                            row = min(i32(place * pixels), i32(rows - pixels))  # the last again, if need be
                            source = moved_floats(left, i32(row * a_strides[3])), a_strides[3]
                            end = moved_floats(target, i32(row * columns + number * lanes)), columns
                            if same or number < blocks - 1:
                                block(source, window, weights, end, bounds)
                            else:
                                last_block(source, window, weights, end, bounds)

    kernel.__name__ = "products_float_" + "_".join(map(str, vars(cut).values()))
    return kernel


def prepare_conv(
    unit: FloatUnit, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: ConvolutionOptions
) -> list[Step] | None:
    """Threads share its rows."""
    x, (y,) = inputs[0], outputs
    found = _floats(inputs, y)
    if found is None:
        return None
    w, bias = found
    stride, dilation = options.strides, options.dilations
    pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
    bounds = float_activation_range(options)
    (images, _, width, channels), (_, _, out_w, out_channels) = x.shape, y.shape
    steps, work = [], y.size * w[0].size
    for r in rows(threads, work, x.shape, y.shape, (w.shape[1], stride[0], dilation[0], pads[0])):
        shapes = (images, r.end - r.start, width, channels), (images, r.last - r.first, out_w, out_channels)
        at = part(x, r.start * width * channels), part(y, r.first * out_w * out_channels)
        steps.append(_convolved(unit, at, shapes, (w, bias), (stride, dilation, (r.pad, pads[1])), bounds))
    return [divided(steps)]


def prepare_fully_connected(
    unit: FloatUnit, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: FullyConnectedOptions
) -> list[Step] | None:
    """Threads share its units, or where it has several the rows of its input."""
    x, (y,) = inputs[0], outputs
    found = _floats(inputs, y)
    if found is None:
        return None
    (units, depth), (w, bias) = found[0].shape, found
    w, count, bounds = w.reshape(units, 1, 1, depth), x.size // depth, float_activation_range(options)
    used = 1 if y.size * depth < LEAST else threads
    steps = []
    for (first, last), own in (
        [((0, count), slice(a, b)) for a, b in ranges(units, used, unit.lanes)]
        if count == 1
        else [(r, slice(0, units)) for r in ranges(count, used)]
    ):
        shapes = (1, 1, last - first, depth), (1, 1, last - first, own.stop - own.start)
        at = part(x, first * depth), part(y, first * units + own.start)
        steps.append(_convolved(unit, at, shapes, (w[own], bias[own]), ((1, 1), (1, 1), (0, 0)), bounds))
    return [divided(steps)]


def prepare_depthwise(
    unit: FloatUnit, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: DepthwiseOptions
) -> list[Step] | None:
    """None for several filters a channel."""
    x, (y,) = inputs[0], outputs
    if x.shape[3] != y.shape[3] or (found := _floats(inputs, y)) is None:
        return None
    w, bias = found
    (images, height, width, channels), (_, kernel_h, kernel_w, _) = x.shape, w.shape
    stride, dilation = options.strides, options.dilations
    pads = padding(options.padding, (height, width), y.shape[1:3], (kernel_h, kernel_w), stride, dilation)
    vectors, pixels = -(-channels // unit.lanes), _fitting(y.shape[2], (unit.registers - 4) // 2, 1)
    taps, ends = np.zeros((kernel_h * kernel_w, vectors * unit.lanes), np.float32), _padded(bias, unit.lanes)
    taps[:, :channels] = w.reshape(-1, channels)
    tail = channels - (vectors - 1) * unit.lanes
    steps, window = [], (kernel_h, stride[0], dilation[0], pads[0])
    for r in rows(threads, y.size * len(taps), x.shape, y.shape, window):
        out = r.last - r.first, y.shape[2]
        size = _size(out, stride, (kernel_h, kernel_w), dilation)
        row = size[1] * channels
        tensors = part(x, r.start * width * channels), taps.reshape(-1), ends, part(y, r.first * out[1] * channels)
        copy = images, (r.end - r.start, width, channels), size, (r.pad, pads[1])
        at = kernel_h, dilation[0] * row, kernel_w, dilation[1] * channels, taps.shape[1]
        geometry = at, out, (stride[0] * row, stride[1] * channels), vectors
        scratch = Scratch(size[0] * row * WIDTH + unit.bytes, np.float32)
        arguments = tensors, scratch, copy, geometry, float_activation_range(options)
        steps.append(Step(_depthwise(unit, pixels, tail), arguments))
    return [divided(steps)]


def prepare_batch_matmul(
    unit: FloatUnit, inputs: Sequence[Any], outputs: Sequence[Tensor], options: BatchMatmulOptions
) -> list[Step] | None:
    """One thread. None where the rows of the left matrix don't follow one another."""
    a, b, (y,) = inputs[0], inputs[1], outputs
    if any(t.dtype != np.float32 for t in (a, b, y)) or y.size == 0 or options.adj_x:
        return None
    sizes, strides = matrix_geometry(a, b, y, options)
    rows, columns, depth = sizes[3:]
    if depth == 0:
        return None
    chosen = cut(unit, rows, columns, depth)
    blocks = chosen.blocks(unit, columns)
    room = ((blocks - 1) * chosen.vectors + chosen.last) * unit.lanes * depth
    zeros = np.zeros(chosen.vectors * unit.lanes, np.float32)
    scratch = Scratch(room * WIDTH, np.float32)
    return [Step(_products(unit, chosen), ((a, b, zeros, y), scratch, sizes, strides, blocks))]


def _floats(inputs: Sequence[Any], y: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """float32: weights, and [channels of y] the bias. None where a kernel here can't have them."""
    x, w = inputs[0], inputs[1]
    if x.dtype != np.float32 or w.data is None or y.size == 0:
        return None
    bias = bias_of(inputs, y)
    if isinstance(bias, Tensor):
        if bias.data is None:
            return None
        bias = bias.data
    weights = dequantized(w).reshape(w.shape)
    if not np.isfinite(weights).all():
        return None
    return weights, np.broadcast_to(bias.reshape(-1).astype(np.float32), y.shape[-1])


def _convolved(
    unit: FloatUnit,
    at: tuple[Any, Any],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    weights: tuple[np.ndarray, np.ndarray],
    window: tuple[Pair, Pair, Pair],
    bounds: tuple[float, float],
) -> Step:
    """at: x and y as arguments. shapes: of them, NHWC. weights: [o, kh, kw, c / groups], and biases [o]. window:
    stride, dilation, padding in front."""
    w, bias = weights
    (images, height, width, channels), (_, out_h, out_w, _) = shapes
    out_channels, kernel_h, kernel_w, depth = w.shape
    stride, dilation, pads = window
    if (kernel_h, kernel_w, *stride, *pads) == (1, 1, 1, 1, 0, 0):
        images, height, width, out_h, out_w = 1, 1, images * height * width, 1, images * out_h * out_w
    groups, size = channels // depth, _size((out_h, out_w), stride, (kernel_h, kernel_w), dilation)
    copies = pads != (0, 0) or size[0] > height or size[1] > width
    filters, width_read = out_channels // groups, size[1] if copies else width
    # a row of the window is one run where its pixels follow one another
    columns = 1 if dilation[1] == 1 and groups == 1 else kernel_w
    run = kernel_w * depth // columns
    chosen = cut(unit, out_w, filters, run)
    cells, ends = _arranged(unit, w.reshape(groups, filters, -1), chosen), _by_group(bias, groups, unit.lanes)
    row = width_read * channels
    scratch = Scratch(size[0] * row * WIDTH if copies else WIDTH, np.float32)
    copy = images, (height, width, channels), size, pads
    block = kernel_h * kernel_w * depth * chosen.vectors * unit.lanes
    geometry = (
        (groups, depth, cells.size // groups, ends.size // groups),
        (kernel_h, dilation[0] * row, columns, dilation[1] * channels, run // chosen.unroll),
        (out_h, out_w, out_channels, filters, chosen.blocks(unit, filters), block),
        (stride[0] * row, stride[1] * channels),
    )
    return Step(_blocked(unit, chosen, copies), ((at[0], cells, ends, at[1]), scratch, copy, geometry, bounds))


def _arranged(unit: FloatUnit, w: np.ndarray, cut: Cut) -> np.ndarray:
    """[groups, filters, taps] -> flat [groups, blocks, taps, vectors, lanes], the last block as narrow as it is."""
    groups, filters, taps = w.shape
    whole = np.zeros((groups, -(-filters // unit.lanes) * unit.lanes, taps), np.float32)
    whole[:, :filters] = w
    step = cut.vectors * unit.lanes
    parts = [whole[:, at : at + step].transpose(0, 2, 1).reshape(groups, -1) for at in range(0, whole.shape[1], step)]
    return np.ascontiguousarray(np.concatenate(parts, 1)).reshape(-1)


def _by_group(bias: np.ndarray, groups: int, lanes: int) -> np.ndarray:
    return np.concatenate([_padded(part, lanes) for part in bias.reshape(groups, -1)])


def _padded(bias: np.ndarray, lanes: int) -> np.ndarray:
    """With zeros behind it, to whole vectors."""
    return np.pad(bias, (0, -bias.size % lanes)).astype(np.float32)


def _size(out: Pair, stride: Pair, kernel: Pair, dilation: Pair) -> Pair:
    """Height and width that the windows of an output reach over."""
    high, wide = ((o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, dilation))
    return high, wide
