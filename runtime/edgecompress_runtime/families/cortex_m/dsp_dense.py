"""FULLY_CONNECTED with SMLAD: the input row is widened to int16 once, weights on the way."""

from __future__ import annotations

from llvmlite import ir

from edgecompress_runtime.families.cortex_m.dsp import widen, widened
from edgecompress_runtime.families.shared.arranged_dense import (
    DenseArrangement,
    dense,
    dense_coded,
    four_channel_records,
)
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.plain_dense import store_four
from edgecompress_runtime.families.shared.words import (
    BYTE,
    FOUR,
    INT8_POINTER,
    RECORD,
    WORD,
    N,
    address,
    function,
    load,
    load_pair,
    pinned,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code


@llvm_code(FOUR(INT8_POINTER, INT8_POINTER, N, RECORD))
def _dot_1x4(b: ir.IRBuilder, x: ir.Value, w: ir.Value, fours: ir.Value, record: Tuple) -> list[ir.Value]:
    """x: int16, widened; w: int8 of four channels by turns, four each, widened on the way."""
    smlad = function(b, "llvm.arm.smlad", WORD, WORD, WORD, WORD)
    records = address(b, record[0], b.mul(record[1], WORD(4)), BYTE)
    pointers, sums = [x, w], [load(b, records, 4 * o, WORD) for o in range(4)]
    for count, unrolled in ((b.udiv(fours, WORD(2)), 2), (b.urem(fours, WORD(2)), 1)):
        loop = Loop(b, count, pointers, sums)
        sums = list(loop.values)
        for k in range(unrolled):
            xs = load_pair(b, loop.pointers[0], 8 * k)
            for o in range(4):
                for value, weight in zip(xs, widened(b, load(b, loop.pointers[1], 16 * k + 4 * o, WORD))):
                    sums[o] = b.call(smlad, [value, weight, sums[o]])
            sums = pinned(b, sums)
        pointers, sums = loop.close([8 * unrolled, 16 * unrolled], sums)
    return sums


@inline
def _row(x: Pointer, scratch: Pointer, depth: Word) -> Pointer:
    """A row that is no multiple of four bytes is followed by as many of what lies behind it, times zero."""
    whole = i32(depth // i32(4))
    widen(x, scratch, whole)
    if depth % i32(4):
        for i in range(i32(whole * 8), i32(whole * 8 + 8)):
            scratch[i] = 0
        for i in range(i32(depth % i32(4))):
            # byte i of four goes to half (0, 2, 1, 3)[i]
            half = i32(i // i32(2) + i32(2) * (i % i32(2)))
            value = i32(x[i32(whole * 4 + i)])
            scratch[i32(whole * 8 + half * 2)] = value
            scratch[i32(whole * 8 + half * 2 + 1)] = value >> i32(8)
    return scratch


@inline
def _block(row: Pointer, weights: Pointer, padded: Word, record: Tuple, target: Pointer, bounds: Words) -> None:
    place = record[0], i32(record[1] * 16)
    store_four(_dot_1x4(row, weights, i32(padded // i32(4)), place), place, target, bounds)


dsp_dense = dense("dsp_dense", __name__, _row, _block)
dsp_dense_coded = dense_coded("dsp_dense_coded", __name__, _row, _block)
DENSE = DenseArrangement(dsp_dense, 4, 4, 2, four_channel_records, Coded(dsp_dense_coded, TO_BYTES))
