"""DEPTHWISE_CONV_2D with the DSP extension: four channels of a pixel, whose bytes are widened on the way."""

from __future__ import annotations

from llvmlite import ir

from edgecompress_runtime.families.cortex_m.dsp import copy_words, widened
from edgecompress_runtime.families.shared.arranged_depthwise import (
    UNROLLED,
    DepthwiseArrangement,
    DepthwiseBlocks,
    depthwise,
)
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.gated_depthwise import GatedDepthwise, gated_depthwise
from edgecompress_runtime.families.shared.plain_blocks import blank
from edgecompress_runtime.families.shared.plain_blocks import copy as copy_bytes
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.words import BYTE, FOUR, HALF, INT8_POINTER, PAIR, RECORD, WORD, address, load
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code


@llvm_code(FOUR(INT8_POINTER, INT8_POINTER, PAIR, RECORD))
def _dot_4(b: ir.IRBuilder, x: ir.Value, w: ir.Value, taps: Tuple, record: Tuple) -> list[ir.Value]:
    """Four channels: bytes 0 and 2 of a word, widened to halves, then 1 and 3; each product is one of two halves
    (SMLABB, SMLATT). record: the records, and the place of the first channel's bias."""
    number, step = taps
    records = address(b, record[0], b.mul(record[1], WORD(4)), BYTE)
    pointers, sums = [x, w], [load(b, records, 4 * c, WORD) for c in range(4)]
    for count, unrolled in ((b.udiv(number, WORD(UNROLLED)), UNROLLED), (b.urem(number, WORD(UNROLLED)), 1)):
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
    return sums


@inline
def _copy(source: Pointer, target: Pointer, n: Word) -> None:
    if n % i32(4) == 0:
        copy_words(source, target, i32(n // i32(4)))
    else:
        copy_bytes(source, target, n)


@inline
def _scaled(acc: Word, records: Pointer, r: Word, bounds: Words) -> Word:
    y = scaled_twice(acc, records[i32(r + 4)], records[i32(r + 8)], records[i32(r + 12)])
    return clamp(y, bounds[0], bounds[1])


@inline
def _block(window: Pointer, weights: Pointer, taps: Words, record: Tuple, target: Pointer, bounds: Words) -> None:
    records, r = record[0], i32(record[1] * 16)
    a, b, c, d = _dot_4(window, weights, taps, (records, r))
    target[0] = _scaled(a, records, r, bounds)
    target[1] = _scaled(b, records, i32(r + 1), bounds)
    target[2] = _scaled(c, records, i32(r + 2), bounds)
    target[3] = _scaled(d, records, i32(r + 3), bounds)


BLOCKS = DepthwiseBlocks(4, _copy, blank, _block)
dsp_depthwise = depthwise("dsp_depthwise", __name__, BLOCKS)
dsp_depthwise_coded = depthwise("dsp_depthwise_coded", __name__, BLOCKS, coded=True)
DEPTHWISE = DepthwiseArrangement(dsp_depthwise, 4, 1, Coded(dsp_depthwise_coded, TO_BYTES))
dsp_gated_depthwise = gated_depthwise("dsp_gated_depthwise", __name__, BLOCKS)
GATED = GatedDepthwise(dsp_gated_depthwise, DEPTHWISE)
