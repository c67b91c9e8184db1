"""FULLY_CONNECTED with Helium: four channels, each sum in a register."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.helium import copy_vectors, dot, scaled_twice
from edgecompress_runtime.families.cortex_m.helium_signs import Signs, four_channels_of
from edgecompress_runtime.families.shared.arranged_dense import DenseArrangement, dense, dense_coded, four_lane_records
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.vectors import BYTES, FOUR_BYTES, LANES, clamped, vector
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, PAIR, RECORD, WORD, N, address, load, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline, llvm_code


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, N, RECORD, INT8_POINTER, PAIR))
def _block(
    b: ir.IRBuilder, row: ir.Value, w: ir.Value, depth: ir.Value, record: Tuple, target: ir.Value, bounds: Tuple
) -> None:
    """w: the weights of four channels one after the other; depth a multiple of 16."""
    records = address(b, record[0], b.mul(record[1], WORD(64)), BYTE)
    rows = [address(b, w, b.mul(depth, WORD(o)), BYTE) for o in range(4)]
    biases = [load(b, records, 4 * o, WORD) for o in range(4)]
    loop = Loop(b, b.udiv(depth, WORD(16)), [row, *rows], biases)
    value, *ws = (load(b, p, 0, BYTES, 1) for p in loop.pointers)
    sums = [dot(b, s, value, weight) for s, weight in zip(loop.values, ws)]
    _, sums = loop.close([16] * 5, sums)
    y = scaled_twice(b, vector(b, sums), *(load(b, records, 16 * k, LANES) for k in (1, 2, 3)))
    store(b, b.trunc(clamped(b, y, bounds), FOUR_BYTES), target, 0, 1)


@inline
def _row(x: Pointer, scratch: Pointer, depth: Word) -> Pointer:
    if depth % i32(16) == 0:
        return x
    copy_vectors(x, scratch, i32(depth // i32(16)))
    for i in range(i32(depth - depth % i32(16)), depth):
        scratch[i] = x[i]
    return scratch


helium_dense = dense("helium_dense", __name__, _row, _block)
helium_dense_coded = dense_coded("helium_dense_coded", __name__, _row, _block)
helium_dense_binary = dense_coded("helium_dense_binary", __name__, _row, _block, four_channels_of(1))
helium_dense_ternary = dense_coded("helium_dense_ternary", __name__, _row, _block, four_channels_of(2))
SIGNS = Signs(helium_dense_binary, bits=1), Signs(helium_dense_ternary, bits=2)
CODED = Coded(helium_dense_coded, TO_BYTES, first=SIGNS)
DENSE = DenseArrangement(helium_dense, 0, 16, 1, four_lane_records, CODED)
