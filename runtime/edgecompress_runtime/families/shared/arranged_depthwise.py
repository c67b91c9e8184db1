"""DEPTHWISE_CONV_2D on top of a family's primitives: every output channel is a sum along a strip's window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.cortex_m import helium_blocks
from edgecompress_runtime.families.cortex_m.dsp import widened
from edgecompress_runtime.families.cortex_m.helium_blocks import FOUR_BYTES, LANES, clamped
from edgecompress_runtime.families.shared import plain_blocks
from edgecompress_runtime.families.shared.arranged_convolution import channel_groups, trailing
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES, call_bytes
from edgecompress_runtime.families.shared.scaling import scaled_twice, scaling
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.strip import strip_of
from edgecompress_runtime.families.shared.words import (
    BYTE,
    HALF,
    INT8_POINTER,
    INT32_POINTER,
    WORD,
    address,
    load,
    moved,
    store,
)
from edgecompress_runtime.kernels.arithmetic import activation_range, clamp, i32
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import DepthwiseOptions
from edgecompress_runtime.plan import Tensor

UNROLLED = 3  # taps in an iteration: most kernels are 3x3


def depthwise(
    name: str,
    module: str,
    group: int,
    copy: Callable[..., Any],
    blank: Callable[..., Any],
    block: Callable[..., Any],
    taken: Callable[..., Any],
) -> Callable[..., None]:
    """The kernel of a family.

    block(window, weights, taps, channels, records, number, target, low, high): the `number`th group of `group` channels
    of one pixel. taken(w, count): where the plain weights lie.
    """
    strip_rows = strip_of(1, copy, blank)

    def kernel(x, w, records, y, strip, size, window, out, stride, dilation, pads, x_zero, low, high):
        channels = size[2]
        kernel_h, kernel_w = window
        out_h, out_w, _ = out
        columns, step = i32((out_w - 1) * stride[1] + kernel_w), i32(kernel_h * channels)
        weights = taken(w, i32(kernel_h * kernel_w * channels))
        for out_y in range(out_h):
            top = i32(out_y * stride[0] - pads[0])
            strip_rows(x, strip, top, size, kernel_h, dilation, pads[1], columns, step, x_zero)
            for out_x in range(out_w):
                pixels = moved(strip, i32(out_x * stride[1] * step))
                target = moved(y, i32((out_y * out_w + out_x) * channels))
                for number in range(i32(i32(channels + group - 1) // i32(group))):
                    c = min(i32(number * group), i32(channels - group))
                    block(
                        moved(pixels, c),
                        moved(weights, c),
                        i32(kernel_h * kernel_w),
                        channels,
                        records,
                        number,
                        moved(target, c),
                        low,
                        high,
                    )

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


def tap_sum(b: ir.IRBuilder, x: ir.Value, w: ir.Value, taps: ir.Value, step: ir.Value, bias: ir.Value) -> ir.Value:
    """bias + sum of x[t * step] * w[t * step], of one channel or, where bias is a vector, of four."""
    stored = BYTE if bias.type == WORD else FOUR_BYTES
    pointers, total = [x, w], bias
    for count, unrolled in ((b.udiv(taps, WORD(UNROLLED)), UNROLLED), (b.urem(taps, WORD(UNROLLED)), 1)):
        loop = Loop(b, count, pointers, [total])
        (total,) = loop.values
        for k in range(unrolled):
            at = b.mul(step, WORD(k))
            value, weight = (b.sext(load(b, p, at, stored, 1), bias.type) for p in loop.pointers)
            total = b.add(total, b.mul(value, weight))
        pointers, (total,) = loop.close([b.mul(step, WORD(unrolled))] * 2, [total])
    return total


@intrinsic
def channel_sum(typingctx, x, w, taps, step, bias):
    def generate(context, builder, signature, args):
        return tap_sum(builder, *args)

    return types.int32(INT8_POINTER, INT8_POINTER, *[types.int32] * 3), generate


@njit(inline="always")
def plain_channel(window, weights, taps, channels, records, number, target, low, high):
    r = i32(number * 4)
    acc = channel_sum(window, weights, taps, channels, records[r])
    scaled = scaled_twice(acc, records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)])
    target[0] = clamp(scaled, low, high)


@intrinsic
def dsp_sums(typingctx, x, w, taps, step, records, record):
    """Four channels: bytes 0 and 2 of a word, widened to halves, then 1 and 3; each product is one of two halves
    (SMLABB, SMLATT)."""

    def generate(context, b, signature, args):
        x, w, taps, step, records, record = args
        records = address(b, records, b.mul(record, WORD(4)), BYTE)
        pointers, sums = [x, w], [load(b, records, 4 * c, WORD) for c in range(4)]
        for count, unrolled in ((b.udiv(taps, WORD(UNROLLED)), UNROLLED), (b.urem(taps, WORD(UNROLLED)), 1)):
            loop = Loop(b, count, pointers, sums)
            sums = list(loop.values)
            for k in range(unrolled):
                words = [load(b, p, b.mul(step, WORD(k)), WORD, 1) for p in loop.pointers]
                for odd, (value, weight) in enumerate(zip(*(widened(b, word) for word in words))):
                    low = [b.sext(b.trunc(half, HALF), WORD) for half in (value, weight)]
                    high = [b.ashr(half, WORD(16)) for half in (value, weight)]
                    for c, pair in ((odd, low), (odd + 2, high)):
                        sums[c] = b.add(sums[c], b.mul(*pair))
            pointers, sums = loop.close([b.mul(step, WORD(unrolled))] * 2, sums)
        return context.make_tuple(b, signature.return_type, sums)

    four = types.UniTuple(types.int32, 4)
    arguments = (INT8_POINTER, INT8_POINTER, types.int32, types.int32, INT32_POINTER, types.int32)
    return four(*arguments), generate


@intrinsic
def copy_words(typingctx, source, target, count):
    """4 * count bytes; neither address need be a multiple of 4."""

    def generate(context, builder, signature, args):
        pointers, count = list(args[:2]), args[2]
        for words, unrolled in ((builder.udiv(count, WORD(4)), 4), (builder.urem(count, WORD(4)), 1)):
            loop = Loop(builder, words, pointers, [])
            for k in range(unrolled):
                store(builder, load(builder, loop.pointers[0], 4 * k, WORD, 1), loop.pointers[1], 4 * k, 1)
            pointers, _ = loop.close([4 * unrolled] * 2, [])
        return context.get_dummy_value()

    return types.void(INT8_POINTER, INT8_POINTER, types.int32), generate


@njit(inline="always")
def dsp_copy(source, target, n):
    if n % i32(4) == 0:
        copy_words(source, target, i32(n // i32(4)))
    else:
        plain_blocks.copy(source, target, n)


@njit(inline="always")
def scaled(acc, records, r, low, high):
    y = scaled_twice(acc, records[i32(r + 4)], records[i32(r + 8)], records[i32(r + 12)])
    return clamp(y, low, high)


@njit(inline="always")
def dsp_four(window, weights, taps, channels, records, number, target, low, high):
    r = i32(number * 16)
    a, b, c, d = dsp_sums(window, weights, taps, channels, records, r)
    target[0] = scaled(a, records, r, low, high)
    target[1] = scaled(b, records, i32(r + 1), low, high)
    target[2] = scaled(c, records, i32(r + 2), low, high)
    target[3] = scaled(d, records, i32(r + 3), low, high)


@intrinsic
def helium_channels(typingctx, window, weights, taps, channels, records, number, target, low, high):
    def generate(context, b, signature, args):
        window, weights, taps, channels, records, number, target, low, high = args
        records = address(b, records, b.mul(number, WORD(64)), BYTE)
        acc = tap_sum(b, window, weights, taps, channels, load(b, records, 0, LANES))
        y = helium_blocks.scaled_twice(b, acc, *(load(b, records, 16 * k, LANES) for k in (1, 2, 3)))
        store(b, b.trunc(clamped(b, y, low, high), FOUR_BYTES), target, 0, 1)
        return context.get_dummy_value()

    return types.void(
        INT8_POINTER,
        INT8_POINTER,
        types.int32,
        types.int32,
        INT32_POINTER,
        types.int32,
        INT8_POINTER,
        types.int32,
        types.int32,
    ), generate


@njit(inline="always")
def helium_four(window, weights, taps, channels, records, number, target, low, high):
    helium_channels(window, weights, taps, channels, records, number, target, low, high)


@njit(inline="always")
def in_flash(w, count):
    return w


@njit(inline="always")
def decoded(w, count):
    """w: (code, table, memory)."""
    code, table, memory = w
    call_bytes(code, table, memory, count, i32(0))
    return memory


PLAIN_PARTS = 1, plain_blocks.copy, plain_blocks.blank, plain_channel
DSP_PARTS = 4, dsp_copy, plain_blocks.blank, dsp_four
HELIUM_PARTS = 4, helium_blocks.copy, helium_blocks.blank, helium_four
plain_depthwise = depthwise("plain_depthwise", __name__, *PLAIN_PARTS, in_flash)
plain_depthwise_coded = depthwise("plain_depthwise_coded", __name__, *PLAIN_PARTS, decoded)
dsp_depthwise = depthwise("dsp_depthwise", __name__, *DSP_PARTS, in_flash)
dsp_depthwise_coded = depthwise("dsp_depthwise_coded", __name__, *DSP_PARTS, decoded)
helium_depthwise = depthwise("helium_depthwise", __name__, *HELIUM_PARTS, in_flash)
helium_depthwise_coded = depthwise("helium_depthwise_coded", __name__, *HELIUM_PARTS, decoded)


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
        taps, bias = w.data.reshape(-1, channels).astype(np.int64), bias_of(inputs)
        values = (bias.data if isinstance(bias, Tensor) else np.zeros(channels)).astype(np.int64).reshape(-1)
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
        arguments = (
            x,
            held or weights,
            records.reshape(-1),
            y,
            strip,
            x.shape[1:],
            (kernel_h, kernel_w),
            y.shape[1:],
            stride,
            dilation[0],
            pads,
            x.zero,
            *activation_range(options, y),
        )
        overlap = {x: trailing(x.shape, y.shape, stride[0], pads[0])}
        return [held.step(arguments, overlap) if held else Step(self.kernel, arguments, overlap)]


PLAIN = DepthwiseArrangement(plain_depthwise, 1, 1, Coded(plain_depthwise_coded, TO_BYTES))
DSP = DepthwiseArrangement(dsp_depthwise, 4, 1, Coded(dsp_depthwise_coded, TO_BYTES))
HELIUM = DepthwiseArrangement(helium_depthwise, 4, -1, Coded(helium_depthwise_coded, TO_BYTES))
