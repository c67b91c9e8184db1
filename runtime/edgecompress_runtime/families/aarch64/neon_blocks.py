"""Convolution with NEON: four pixels by four channels, whose sums stay in registers, 16 weights of each at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.aarch64.neon import bank, blank, copy, dot, narrowed, scaled_twice, totals
from edgecompress_runtime.families.cortex_m.helium_blocks import BYTES, LANES
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, INT32_POINTER, WORD, address, load, store

PIXELS, CHANNELS = 4, 4
UNROLLED = 2  # vectors in an iteration: loaded in pairs


def block_sums(
    b: ir.IRBuilder, has_dot: bool, xs: list[ir.Value], w: ir.Value, vectors: ir.Value
) -> list[list[ir.Value]]:
    """Of each of xs the sums of four channels, each four lanes to be added up. w: a vector of each channel by turns."""
    pointers, sums = [*xs, w], [ir.Constant(LANES, [0] * 4)] * (CHANNELS * len(xs))
    for count, unrolled in ((b.udiv(vectors, WORD(UNROLLED)), UNROLLED), (b.urem(vectors, WORD(UNROLLED)), 1)):
        loop = Loop(b, count, pointers, sums)
        sums = list(loop.values)
        values = [[load(b, p, 16 * k, BYTES, 1) for k in range(unrolled)] for p in loop.pointers[:-1]]
        for k in range(unrolled):
            ws = [load(b, loop.pointers[-1], 16 * (k * CHANNELS + o), BYTES, 16) for o in range(CHANNELS)]
            sums = [dot(b, has_dot, s, values[i // CHANNELS][k], ws[i % CHANNELS]) for i, s in enumerate(sums)]
        steps: list[int | ir.Value] = [*[16 * unrolled] * len(xs), 16 * unrolled * CHANNELS]
        pointers, sums = loop.close(steps, sums)
    return [sums[i : i + CHANNELS] for i in range(0, len(sums), CHANNELS)]


def block_of(has_dot: bool) -> Callable[..., Any]:
    @intrinsic
    def dot_4x4_stored(typingctx, x, x_step, w, depth, records, record, target, y_step, low, high):
        """One block of strip_convolution; depth a multiple of 16."""

        def generate(context, b, signature, args):
            x, x_step, w, depth, records, record, target, y_step, low, high = args
            records = address(b, records, b.mul(record, WORD(64)), BYTE)
            xs = [address(b, x, b.mul(x_step, WORD(p)), BYTE) for p in range(PIXELS)]
            bias, multiplier, term, up = (load(b, records, 16 * k, LANES) for k in range(4))
            values = []
            for sums in block_sums(b, has_dot, xs, w, b.udiv(depth, WORD(16))):
                values.append(scaled_twice(b, b.add(totals(b, sums), bias), multiplier, term, up))
            result = b.bitcast(narrowed(b, values, low, high), LANES)
            for p in range(PIXELS):
                store(b, b.extract_element(result, WORD(p)), target, b.mul(y_step, WORD(p)), 1)
            return context.get_dummy_value()

        return types.void(
            INT8_POINTER,
            types.int32,
            INT8_POINTER,
            types.int32,
            INT32_POINTER,
            types.int32,
            INT8_POINTER,
            *[types.int32] * 3,
        ), generate

    @njit(inline="always")
    def block(window, x_step, weights, depth, records, record, target, y_step, low, high):
        dot_4x4_stored(window, x_step, weights, depth, records, record, target, y_step, low, high)

    return block


def blocks(has_dot: bool) -> Blocks:
    return Blocks(1, 16, copy, blank, bank, block_of(has_dot), PIXELS, CHANNELS)


neon_convolution = strip_convolution("neon_convolution", __name__, blocks(False))
neon_dot_convolution = strip_convolution("neon_dot_convolution", __name__, blocks(True))
