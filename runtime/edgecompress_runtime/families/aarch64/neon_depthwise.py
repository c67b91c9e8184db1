"""DEPTHWISE_CONV_2D with NEON: 16 or 8 channels of a pixel. Products of two taps fit int16, as neon.LEAST has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.aarch64.neon import (
    EIGHT_BYTES,
    HALVES,
    LEAST,
    blank,
    copy,
    half,
    narrowed,
    scaled_twice,
)
from edgecompress_runtime.families.cortex_m.helium_blocks import LANES
from edgecompress_runtime.families.shared.arranged_depthwise import UNROLLED, DepthwiseArrangement, depthwise, in_flash
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    WORD,
    address,
    function,
    load,
    store,
)


def block_of(channels: int) -> Callable[..., Any]:
    stored = ir.VectorType(BYTE, channels)

    def tap_sums(
        b: ir.IRBuilder, x: ir.Value, w: ir.Value, taps: ir.Value, step: ir.Value, biases: list[ir.Value]
    ) -> list[ir.Value]:
        """Of four channels a vector. step: bytes from tap to tap."""
        multiply = function(b, "llvm.aarch64.neon.smull.v8i16", HALVES, EIGHT_BYTES, EIGHT_BYTES)
        pointers, sums = [x, w], biases
        for count, unrolled in ((b.udiv(taps, WORD(UNROLLED)), UNROLLED), (b.urem(taps, WORD(UNROLLED)), 1)):
            loop = Loop(b, count, pointers, sums)
            sums, products = list(loop.values), []
            for k in range(unrolled):
                x_k, w_k = (load(b, p, b.mul(step, WORD(k)), stored, 1) for p in loop.pointers)
                eights = [(half(b, x_k, i), half(b, w_k, i)) for i in (0, 1)] if channels == 16 else [(x_k, w_k)]
                products.append([b.call(multiply, pair) for pair in eights])
            for first in range(0, unrolled, 2):
                for i, total in enumerate(products[first]):
                    if first + 1 < unrolled:
                        total = b.add(total, products[first + 1][i])
                    for upper in (0, 1):
                        n = 2 * i + upper
                        sums[n] = b.add(sums[n], b.sext(half(b, total, upper), LANES))
            pointers, sums = loop.close([b.mul(step, WORD(unrolled))] * 2, sums)
        return sums

    @intrinsic
    def channels_stored(typingctx, window, weights, taps, step, records, number, target, low, high):
        def generate(context, b, signature, args):
            window, weights, taps, step, records, number, target, low, high = args
            records = address(b, records, b.mul(number, WORD(16 * channels)), BYTE)
            fields = [
                [load(b, records, 4 * (channels * k + n), LANES) for n in range(0, channels, 4)] for k in range(4)
            ]
            sums = tap_sums(b, window, weights, taps, step, fields[0])
            values = [scaled_twice(b, *parts) for parts in zip(sums, *fields[1:])]
            # eight channels: both halves of the vector
            result = narrowed(b, values if channels == 16 else values + values, low, high)
            store(b, result if channels == 16 else half(b, result, 0), target, 0, 1)
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
    def block(window, weights, taps, channels, records, number, target, low, high):
        channels_stored(window, weights, taps, channels, records, number, target, low, high)

    return block


neon_depthwise_16 = depthwise("neon_depthwise_16", __name__, 16, copy, blank, block_of(16), in_flash)
neon_depthwise_8 = depthwise("neon_depthwise_8", __name__, 8, copy, blank, block_of(8), in_flash)

SIXTEEN = DepthwiseArrangement(neon_depthwise_16, 16, -1, None, LEAST)
EIGHT = DepthwiseArrangement(neon_depthwise_8, 8, -1, None, LEAST)
