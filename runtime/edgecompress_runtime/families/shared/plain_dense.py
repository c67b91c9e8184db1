"""FULLY_CONNECTED for any CPU: four sums in registers."""

from __future__ import annotations

from llvmlite import ir

from edgecompress_runtime.families.shared.arranged_dense import (
    DenseArrangement,
    dense,
    dense_coded,
    four_channel_records,
)
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.words import BYTE, FOUR, INT8_POINTER, RECORD, WORD, N, address, load
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code

UNROLLED = 4


@inline
def _scaled(acc: Word, records: Pointer, r: Word, bounds: Words) -> Word:
    scaled = scaled_twice(acc, records[i32(r + 4)], records[i32(r + 8)], records[i32(r + 12)])
    return clamp(scaled, bounds[0], bounds[1])


@inline
def store_four(sums: Words, record: Tuple, target: Pointer, bounds: Words) -> None:
    """Four outputs, requantized. record: the records, and the place of the first channel's bias."""
    records, r = record
    a, b, c, d = sums
    target[0] = _scaled(a, records, r, bounds)
    target[1] = _scaled(b, records, i32(r + 1), bounds)
    target[2] = _scaled(c, records, i32(r + 2), bounds)
    target[3] = _scaled(d, records, i32(r + 3), bounds)


@llvm_code(FOUR(INT8_POINTER, INT8_POINTER, N, RECORD))
def _dot_1x4(b: ir.IRBuilder, x: ir.Value, w: ir.Value, depth: ir.Value, record: Tuple) -> list[ir.Value]:
    """w: int8 of four channels by turns; sums start from the biases."""
    records = address(b, record[0], b.mul(record[1], WORD(4)), BYTE)
    pointers, sums = [x, w], [load(b, records, 4 * o, WORD) for o in range(4)]
    for count, unrolled in ((b.udiv(depth, WORD(UNROLLED)), UNROLLED), (b.urem(depth, WORD(UNROLLED)), 1)):
        loop = Loop(b, count, pointers, sums)
        sums = list(loop.values)
        for k in range(unrolled):
            value = b.sext(load(b, loop.pointers[0], k, BYTE, 1), WORD)
            ws = [b.sext(load(b, loop.pointers[1], 4 * k + o, BYTE, 1), WORD) for o in range(4)]
            sums = [b.add(s, b.mul(value, weight)) for s, weight in zip(sums, ws)]
        pointers, sums = loop.close([unrolled, 4 * unrolled], sums)
    return sums


@inline
def _row(x: Pointer, scratch: Pointer, depth: Word) -> Pointer:
    return x


@inline
def _block(row: Pointer, weights: Pointer, padded: Word, record: Tuple, target: Pointer, bounds: Words) -> None:
    place = record[0], i32(record[1] * 16)
    store_four(_dot_1x4(row, weights, padded, place), place, target, bounds)


plain_dense = dense("plain_dense", __name__, _row, _block)
plain_dense_coded = dense_coded("plain_dense_coded", __name__, _row, _block)
DENSE = DenseArrangement(plain_dense, 1, 1, 0, four_channel_records, Coded(plain_dense_coded, TO_BYTES))
