"""DEPTHWISE_CONV_2D on top of a family's blocks: every output channel is a sum along a strip's window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from edgecompress_runtime.families.shared.arranged_convolution import channel_groups, trailing
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import call_bytes
from edgecompress_runtime.families.shared.scaling import scaling
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
def _in_flash(w: Pointer, count: Word) -> Pointer:
    return w


@inline
def _decoded(w: Tuple, count: Word) -> Pointer:
    """w: (code, table, memory)."""
    code, table, memory = w
    call_bytes(code, table, memory, count, i32(0))
    return memory


def depthwise(name: str, module: str, blocks: DepthwiseBlocks, *, coded: bool = False) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`. coded: for weights that are decoded first."""
    strip_rows, group, block = strip_of(1, blocks.copy, blocks.blank), blocks.group, blocks.block
    taken = _decoded if coded else _in_flash

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
        """None for several outputs a channel, dilated columns, batches, and fewer channels than a block has."""
        x, w, (y,) = inputs[0], inputs[1], outputs
        if not x.is_int8 or w.data is None or w.data.min() < self.least:
            return None
        _, kernel_h, kernel_w, channels = w.shape
        stride = options.strides
        dilation = options.dilations
        if x.shape[0] != 1 or x.shape[3] != channels or dilation[1] != 1 or channels < self.group:
            return None
        pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
        taps, bias = w.data.reshape(-1, channels).astype(np.int64), bias_of(inputs, y)
        values = np.asarray(bias.data if isinstance(bias, Tensor) else np.zeros(channels)).astype(np.int64).reshape(-1)
        folded = values - x.zero * taps.sum(0)
        largest = np.abs(folded) + 128 * np.abs(taps).sum(0)
        scales = scaling(folded, largest, *channel_multipliers(x, w, y), y.zero)
        if scales is None:
            return None
        rows = np.stack([scales.bias, scales.multiplier, scales.term, self.down * scales.down]).astype(np.int32)
        groups = channel_groups(channels, self.group)
        records = rows[:, groups].reshape(4, -1, self.group).transpose(1, 0, 2)
        strip = Scratch(((y.shape[2] - 1) * stride[1] + kernel_w) * kernel_h * channels)
        weights = w.data.transpose(0, 2, 1, 3).reshape(-1)
        held = self.coded(weights, memory=weights.size) if self.coded else None
        tensors = x, held.operand() if held else weights, records.reshape(-1), y
        geometry = x.shape[1:], (kernel_h, kernel_w), y.shape[1:], stride, dilation[0], pads
        arguments = tensors, strip, geometry, x.zero, activation_range(options, y)
        overlap = {x: trailing(x.shape, y.shape, stride[0], pads[0])}
        return [held.step(arguments, overlap) if held else Step(self.kernel, arguments, overlap)]
