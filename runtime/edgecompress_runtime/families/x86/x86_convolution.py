"""CONV_2D and FULLY_CONNECTED in blocks: which kernel, and its arguments. No im2col.

The image is copied once, with its padding around it and in the form that a step reads; there a window's rows are
runs of bytes. A fully connected layer, and a 1x1 convolution of stride 1, is one row of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.division import LEAST, divided, part, ranges, rows
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.x86.variants import Variant, variant_for_weights
from edgecompress_runtime.families.x86.x86_blocks import Shape
from edgecompress_runtime.families.x86.x86_dense import blocked
from edgecompress_runtime.families.x86.x86_layout import (
    SkippingCut,
    Steps,
    arranged,
    cut,
    dense_time,
    skipping_cuts,
    skipping_steps,
    skipping_time,
    unrolled,
    with_fetching,
)
from edgecompress_runtime.families.x86.x86_requantize import Fields, channel_fields, in_order
from edgecompress_runtime.families.x86.x86_skipping import skipping
from edgecompress_runtime.families.x86.x86_vectors import FIELDS
from edgecompress_runtime.kernels.arithmetic import activation_range
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.matmul import unit_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import ConvolutionOptions, FullyConnectedOptions
from edgecompress_runtime.plan import Tensor

Pair = tuple[int, int]


def prepare_conv(
    variant: Variant, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: ConvolutionOptions
) -> list[Step] | None:
    """Threads share its rows."""
    x, w, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or w.data is None or y.size == 0:
        return None
    variant = variant_for_weights(variant, w.data)
    stride = options.strides
    dilation = options.dilations
    pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
    scaling, bounds = channel_multipliers(x, w, y), activation_range(options, y)
    (images, _, width, channels), (_, _, out_w, out_channels) = x.shape, y.shape
    steps, work = [], y.size * w.data[0].size
    for r in rows(threads, work, x.shape, y.shape, (w.shape[1], stride[0], dilation[0], pads[0])):
        shapes = (images, r.end - r.start, width, channels), (images, r.last - r.first, out_w, out_channels)
        at = part(x, r.start * width * channels), part(y, r.first * out_w * out_channels)
        layer = Layer(variant, *shapes, w.data, stride, dilation, (r.pad, pads[1]))
        steps.append(layer.step(x, y, *at, bias_of(inputs, y), scaling, bounds))
    return _together(steps)


def prepare_fully_connected(
    variant: Variant, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: FullyConnectedOptions
) -> list[Step] | None:
    """Threads share its units, or where it has several the rows of its input."""
    x, w, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or w.data is None or w.zero_point.any() or y.size == 0:
        return None
    variant = variant_for_weights(variant, w.data)
    units, depth = w.shape
    count = x.size // depth
    multiplier, shift = unit_multipliers(x, w, y)
    bias, bounds, weights = bias_of(inputs, y), activation_range(options, y), w.data.reshape(units, 1, 1, depth)
    values = np.broadcast_to(np.asarray(bias.data if isinstance(bias, Tensor) else bias).reshape(-1), units)
    used = 1 if y.size * depth < LEAST else threads
    steps = []
    for (first, last), own in (
        [((0, count), slice(a, b)) for a, b in ranges(units, used, variant.lanes)]
        if count == 1
        else [(r, slice(0, units)) for r in ranges(count, used)]
    ):
        shapes = (1, 1, last - first, depth), (1, 1, last - first, own.stop - own.start)
        at = part(x, first * depth), part(y, first * units + own.start)
        layer = Layer(variant, *shapes, weights[own], (1, 1), (1, 1), (0, 0))
        steps.append(layer.step(x, y, *at, values[own], (multiplier[own], shift[own]), bounds))
    return _together(steps)


def _together(steps: Sequence[Step | None]) -> list[Step] | None:
    found = [step for step in steps if step is not None]
    return [divided(found)] if len(found) == len(steps) else None


@dataclass(eq=False)
class Layer:
    """x_shape, y_shape: NHWC. weights: int8 [o, kh, kw, c / groups]."""

    variant: Variant
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    weights: np.ndarray
    stride: Pair
    dilation: Pair
    pads: Pair

    def step(
        self,
        x: Tensor,
        y: Tensor,
        x_at: Any,
        y_at: Any,
        bias: Tensor | np.ndarray,
        scaling: tuple[np.ndarray, np.ndarray],
        bounds: Pair,
    ) -> Step | None:
        """x_at, y_at: where it reads and writes, as arguments. None where the arithmetic would not fit
        (x86_requantize.py)."""
        values = np.asarray(bias.data if isinstance(bias, Tensor) else bias)
        found = self._fields(x.zero, values, scaling, y.zero, bounds[0])
        if found is None:
            return None
        self._measure()
        self.x, self.y, self.zero, self.bounds = x_at, y_at, x.zero, bounds
        self.fields, self.rounding = found, found.rounding
        return self._skipping() or self._dense()

    def _fields(
        self, x_zero: int, bias: np.ndarray, scaling: tuple[np.ndarray, np.ndarray], y_zero: int, low: int
    ) -> Fields | None:
        rows = self.weights.reshape(len(self.weights), -1)
        values, sums = bias.reshape(-1).astype(np.int64), rows.sum(1, dtype=np.int64)
        sizes = 2 * np.maximum(rows, 0).sum(1, dtype=np.int64) - sums  # of |w|, without a wider copy of the weights
        largest = np.abs(values) + max(127 - x_zero, 128 + x_zero) * sizes
        if self.variant.products == 4:  # values are x + 128
            values = values - (128 + x_zero) * sums
        return channel_fields(values, largest, scaling, y_zero, low=low, fuses=self.variant.fuses)

    def _measure(self) -> None:
        """Sizes, in pixels and in bytes of the copied image."""
        out_channels, kernel_h, kernel_w, depth = self.weights.shape
        self.images, height, width, channels = self.x_shape
        _, out_h, out_w, _ = self.y_shape
        if (kernel_h, kernel_w, *self.stride, *self.pads) == (1, 1, 1, 1, 0, 0):
            pixels = self.images * height * width
            self.images, height, width, out_h, out_w = 1, 1, pixels, 1, pixels
        self.image, self.out = (height, width, channels), (out_h, out_w, out_channels)
        self.groups = channels // depth
        self.filters = out_channels // self.groups
        size = zip((out_h, out_w), self.stride, (kernel_h, kernel_w), self.dilation)
        self.size = tuple((o - 1) * s + (k - 1) * d + 1 for o, s, k, d in size)
        # a row of the window is one run where its pixels follow one another
        self.rows, self.columns = kernel_h, 1 if self.dilation[1] == 1 and self.groups == 1 else kernel_w
        run = kernel_w * depth // self.columns
        self.runs = self.weights.reshape(self.groups, self.filters, self.rows * self.columns, run)
        self.count = -(-run // self.variant.products)  # steps of a run
        pixel = channels * self.variant.element
        row = self.size[1] * pixel
        self.window = self.dilation[0] * row, self.dilation[1] * pixel
        self.strides = self.stride[0] * row, self.stride[1] * pixel
        self.scratch = Scratch(self.size[0] * row + 2 * self.variant.bytes)  # a step may read as much behind
        self.tail = self.filters - (-(-self.filters // self.variant.lanes) - 1) * self.variant.lanes
        self.cut = cut(self.variant, out_w, self.filters)

    @property
    def _copy(self) -> tuple[Any, ...]:
        return self.images, self.image, self.size, self.pads, self.zero

    def _shape(self, pixels: int, vectors: int, tail: int, unroll: int = 1) -> Shape:
        return Shape(pixels, vectors, tail, unroll, self.rounding)

    def _dense(self) -> Step:
        variant, chosen, lanes = self.variant, self.cut, self.variant.lanes
        unroll = unrolled(self.count, chosen.pixels * chosen.vectors)
        last = self._shape(chosen.pixels, chosen.last, self.tail, unroll)
        body = replace(last, vectors=chosen.vectors, tail=lanes) if chosen.blocks > 1 else last
        weights = arranged(variant, self.runs, chosen)
        depth = self.weights.shape[3] * variant.element
        groups = self.groups, depth, weights.nbytes // self.groups, -(-self.filters // lanes) * FIELDS * lanes
        window = self.rows, self.window[0], self.columns, self.window[1], self.count // unroll
        block = self.rows * self.columns * self.count * chosen.vectors * variant.bytes
        out = *self.out, self.filters, chosen.blocks, block
        records = self.fields.records(lanes, in_order(self.groups, self.filters, lanes))
        tensors, geometry = (self.x, weights, records, self.y), (groups, window, out, self.strides)
        arguments = tensors, self.scratch, self._copy, geometry, self.bounds
        return Step(blocked(variant, body, last), arguments)

    def _rounds(self, pixels: int) -> int:
        """Blocks of so many pixels."""
        return self.images * self.out[0] * -(-self.out[1] // pixels)

    def _skipping(self) -> Step | None:
        """Where many steps have no weights for a whole vector of channels, or fewer do with those picked out."""
        if self.groups > 1:
            return None
        variant, (out_h, out_w, _) = self.variant, self.out
        row, column = (np.arange(n) * s for n, s in zip((self.rows, self.columns), self.window))
        runs = (row[:, None] + column).reshape(-1)
        cuts = skipping_cuts(variant, out_w, self.filters)
        if np.count_nonzero(self.weights) >= self.weights.size / 2:
            cuts = [cut for cut in cuts if not cut.picks]

        def time(found: tuple[SkippingCut, Steps]) -> float:
            cut, steps = found
            cycles = self.images * out_h * int(steps.counts.sum()) * skipping_time(variant, out_w, cut)
            return with_fetching(cycles, steps.weights.size / cut.blocks, cut.blocks, self._rounds(cut.pixels))

        best = min(((cut, skipping_steps(variant, self.runs[0], runs, cut)) for cut in cuts), key=time)
        count = runs.size * self.count
        cycles = self.images * out_h * count * dense_time(variant, out_w, self.cut)
        block = count * self.cut.vectors * variant.bytes
        if time(best) >= with_fetching(cycles, block, self.cut.blocks, self._rounds(self.cut.pixels)):
            return None
        cut, steps = best
        last = self._shape(cut.pixels, cut.last, self.tail)
        body = replace(last, vectors=cut.vectors, tail=variant.lanes) if cut.blocks > 1 else last
        records = self.fields.records(variant.lanes, steps.channels)
        lists = steps.weights, steps.places, steps.starts, steps.counts, steps.order
        tensors, geometry = (self.x, lists, records, self.y), (self.out, self.strides)
        arguments = tensors, self.scratch, self._copy, geometry, self.bounds
        return Step(skipping(variant, body, last, cut), arguments, skips=True)
