"""DEPTHWISE_CONV_2D on top of a family's blocks: every output channel is a sum along a strip's window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from edgecompress_runtime.families.shared.arranged_convolution import channel_groups, trailing
from edgecompress_runtime.families.shared.coding import Coded, CodedWeights
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import call_bytes
from edgecompress_runtime.families.shared.scaling import Scaling, scaling
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.strip import strip_of
from edgecompress_runtime.families.shared.vectors import FOUR_BYTES
from edgecompress_runtime.families.shared.words import BYTE, WORD, load, moved
from edgecompress_runtime.kernels.arithmetic import activation_range, i32
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline
from edgecompress_runtime.options import DepthwiseOptions
from edgecompress_runtime.plan import Tensor

UNROLLED = 3  # taps in an iteration: most kernels are 3x3


@dataclass(frozen=True, eq=False)
class DepthwiseBlocks:
    """A family's part in a depthwise convolution; functions for Numba, inlined.

    group: channels of a block. copy, blank: see strip_convolution.Blocks. block(window, weights, taps, record, target,
    bounds): the channels of one pixel, requantized and stored. taps: their number, and bytes from one to the next, of
    weights as of inputs; record: the records, and the number of this group's.
    """

    group: int
    copy: Callable[..., Any]
    blank: Callable[..., Any]
    block: Callable[..., Any]


@inline
def in_flash(w: Pointer, count: Word) -> Pointer:
    """`decoded` for weights that are plain."""
    return w


@inline
def decoded(w: Tuple, count: Word) -> Pointer:
    """Where `count` weights are; w: (code, table, memory)."""
    code, table, memory = w
    call_bytes(code, table, memory, count, i32(0))
    return memory


def depthwise(name: str, module: str, blocks: DepthwiseBlocks, *, coded: bool = False) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`. coded: for weights that are decoded first."""
    strip_rows, group, block = strip_of(1, blocks.copy, blocks.blank), blocks.group, blocks.block
    taken = decoded if coded else in_flash

    def kernel(tensors: Tuple, strip: Pointer, geometry: Tuple, x_zero: Word, bounds: Tuple) -> None:
        """tensors: x, weights, records, y."""
        x, w, records, y = tensors
        size, window, out, stride, dilation, pads = geometry
        channels = size[2]
        kernel_h, kernel_w = window
        out_h, out_w, _ = out
        columns, step = i32((out_w - 1) * stride[1] + kernel_w), i32(kernel_h * channels)
        weights = taken(w, i32(kernel_h * kernel_w * channels))
        for out_y in range(out_h):
            top = i32(out_y * stride[0] - pads[0])
            strip_rows(x, strip, top, (size, kernel_h, dilation), (pads[1], columns, step), x_zero)
            for out_x in range(out_w):
                pixels = moved(strip, i32(out_x * stride[1] * step))
                target = moved(y, i32((out_y * out_w + out_x) * channels))
                for number in range(i32(i32(channels + group - 1) // i32(group))):
                    c = min(i32(number * group), i32(channels - group))
                    taps, record = (i32(kernel_h * kernel_w), channels), (records, number)
                    block(moved(pixels, c), moved(weights, c), taps, record, moved(target, c), bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


def tap_sum(b: ir.IRBuilder, x: ir.Value, w: ir.Value, taps: Tuple, bias: ir.Value) -> ir.Value:
    """bias + sum of x[t * step] * w[t * step], of one channel or, where bias is a vector, of four. taps: their number,
    and step, in bytes."""
    number, step = taps
    stored = BYTE if bias.type == WORD else FOUR_BYTES
    pointers, total = [x, w], bias
    for count, unrolled in ((b.udiv(number, WORD(UNROLLED)), UNROLLED), (b.urem(number, WORD(UNROLLED)), 1)):
        loop = Loop(b, count, pointers, [total])
        (total,) = loop.values
        for k in range(unrolled):
            at = b.mul(step, WORD(k))
            value, weight = (b.sext(load(b, p, at, stored, 1), bias.type) for p in loop.pointers)
            total = b.add(total, b.mul(value, weight))
        pointers, (total,) = loop.close([b.mul(step, WORD(unrolled))] * 2, [total])
    return total


@dataclass(frozen=True, eq=False)
class DepthwiseLayer:
    """A depthwise convolution of one output a channel, ready for kernels. weights: int8 [kernel_h, kernel_w, channels].
    size, out: [height, width, channels]."""

    x: Tensor
    y: Tensor
    weights: np.ndarray
    scales: Scaling
    bounds: tuple[int, int]
    stride: tuple[int, int]
    dilation: int
    pads: tuple[int, int]

    @property
    def columns(self) -> int:
        """Of the strip."""
        return (self.y.shape[2] - 1) * self.stride[1] + self.weights.shape[1]

    def step(
        self, kernel: Callable[..., None], held: CodedWeights | None, operands: tuple[Any, ...], strip: int
    ) -> Step:
        """The call of a kernel. operands: weights, where they aren't coded, and records. strip: bytes of it."""
        weights, records = operands
        tensors = self.x, held.operand() if held else weights, records, self.y
        geometry = self.x.shape[1:], self.weights.shape[:2], self.y.shape[1:], self.stride, self.dilation, self.pads
        arguments = tensors, Scratch(strip), geometry, self.x.zero, self.bounds
        overlap = {self.x: trailing(self.x.shape, self.y.shape, self.stride[0], self.pads[0])}
        return held.step(arguments, overlap) if held else Step(kernel, arguments, overlap)


def depthwise_layer(
    inputs: Sequence[Any], outputs: Sequence[Tensor], options: DepthwiseOptions
) -> DepthwiseLayer | None:
    """None for several outputs a channel, dilated columns, batches, and factors that `scaling` does not hold."""
    x, w, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or w.data is None or x.shape[0] != 1 or x.shape[3] != w.shape[3] or options.dilations[1] != 1:
        return None
    pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], options.strides, options.dilations)
    channels = w.shape[3]
    taps, bias = w.data.reshape(-1, channels).astype(np.int64), bias_of(inputs, y)
    values = np.asarray(bias.data if isinstance(bias, Tensor) else np.zeros(channels)).astype(np.int64).reshape(-1)
    folded = values - x.zero * taps.sum(0)
    largest = np.abs(folded) + 128 * np.abs(taps).sum(0)
    scales = scaling(folded, largest, *channel_multipliers(x, w, y), y.zero)
    if scales is None:
        return None
    bounds = activation_range(options, y)
    return DepthwiseLayer(x, y, w.data[0], scales, bounds, options.strides, options.dilations[0], pads)


@dataclass(frozen=True)
class DepthwiseArrangement:
    """group: channels of a block; down: the sign of the shifts in the records. coded: for weights that are coded in
    flash; None to have them plain. least: the smallest weight that the arithmetic can do."""

    kernel: Callable[..., None]
    group: int
    down: int
    coded: Coded | None
    least: int = -128

    def __call__(
        self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: DepthwiseOptions
    ) -> list[Step] | None:
        """None for what `depthwise_layer` has none for, and fewer channels than a block has."""
        layer = depthwise_layer(inputs, outputs, options)
        if layer is None or layer.weights.min() < self.least or layer.weights.shape[2] < self.group:
            return None
        (kernel_h, _, channels), scales = layer.weights.shape, layer.scales
        rows = np.stack([scales.bias, scales.multiplier, scales.term, self.down * scales.down]).astype(np.int32)
        groups = channel_groups(channels, self.group)
        records = rows[:, groups].reshape(4, -1, self.group).transpose(1, 0, 2)
        weights = layer.weights.transpose(1, 0, 2).reshape(-1)
        held = self.coded(weights, memory=weights.size) if self.coded else None
        operands = weights, records.reshape(-1)
        return [layer.step(self.kernel, held, operands, layer.columns * kernel_h * channels)]
