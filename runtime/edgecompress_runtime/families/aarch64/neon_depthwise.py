"""DEPTHWISE_CONV_2D with NEON: 16 or 8 channels of a pixel. Products of two taps fit int16, as neon.LEAST has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

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
from edgecompress_runtime.families.shared.arranged_depthwise import (
    UNROLLED,
    DepthwiseArrangement,
    DepthwiseBlocks,
    depthwise,
)
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.vectors import LANES
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    PAIR,
    RECORD,
    WORD,
    address,
    function,
    load,
    store,
)
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code


def _block_of(channels: int) -> Callable[..., Any]:
    stored = ir.VectorType(BYTE, channels)

    def tap_sums(b: ir.IRBuilder, x: ir.Value, w: ir.Value, taps: Tuple, biases: list[ir.Value]) -> list[ir.Value]:
        """Of four channels a vector. taps: their number, and bytes from tap to tap."""
        number, step = taps
        multiply = function(b, "llvm.aarch64.neon.smull.v8i16", HALVES, EIGHT_BYTES, EIGHT_BYTES)
        pointers, sums = [x, w], biases
        for count, unrolled in ((b.udiv(number, WORD(UNROLLED)), UNROLLED), (b.urem(number, WORD(UNROLLED)), 1)):
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

    @llvm_code(types.void(INT8_POINTER, INT8_POINTER, PAIR, RECORD, INT8_POINTER, PAIR))
    def block(
        b: ir.IRBuilder,
        window: ir.Value,
        weights: ir.Value,
        taps: Tuple,
        record: Tuple,
        target: ir.Value,
        bounds: Tuple,
    ) -> None:
        records = address(b, record[0], b.mul(record[1], WORD(16 * channels)), BYTE)
        fields = [[load(b, records, 4 * (channels * k + n), LANES) for n in range(0, channels, 4)] for k in range(4)]
        sums = tap_sums(b, window, weights, taps, fields[0])
        values = [scaled_twice(b, *parts) for parts in zip(sums, *fields[1:])]
        # eight channels: both halves of the vector
        result = narrowed(b, values if channels == 16 else values + values, bounds)
        store(b, result if channels == 16 else half(b, result, 0), target, 0, 1)

    return block


neon_depthwise_16 = depthwise("neon_depthwise_16", __name__, DepthwiseBlocks(16, copy, blank, _block_of(16)))
neon_depthwise_8 = depthwise("neon_depthwise_8", __name__, DepthwiseBlocks(8, copy, blank, _block_of(8)))
SIXTEEN = DepthwiseArrangement(neon_depthwise_16, 16, -1, None, LEAST)
EIGHT = DepthwiseArrangement(neon_depthwise_8, 8, -1, None, LEAST)
