"""FULLY_CONNECTED with NEON: a row by four channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.aarch64.neon import LEAST, blank, copy, scaled_twice, totals
from edgecompress_runtime.families.aarch64.neon_blocks import block_sums
from edgecompress_runtime.families.shared.arranged_dense import DenseArrangement, dense, four_lane_records
from edgecompress_runtime.families.shared.vectors import FOUR_BYTES, LANES, clamped
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    PAIR,
    RECORD,
    WORD,
    N,
    address,
    load,
    moved,
    store,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code


@inline
def _row(x: Pointer, scratch: Pointer, depth: Word) -> Pointer:
    """Followed by zeros where its last vector is not full."""
    if depth % i32(16) == 0:
        return x
    copy(x, scratch, depth)
    blank(moved(scratch, depth), i32(i32(16) - depth % i32(16)), i32(0))
    return scratch


def _block_of(has_dot: bool) -> Callable[..., Any]:
    @llvm_code(types.void(INT8_POINTER, INT8_POINTER, N, RECORD, INT8_POINTER, PAIR))
    def stored(
        b: ir.IRBuilder, row: ir.Value, w: ir.Value, depth: ir.Value, place: Tuple, target: ir.Value, bounds: Tuple
    ) -> None:
        """depth: a multiple of 16. place: the records, and the place of the first channel's bias."""
        records = address(b, place[0], b.mul(place[1], WORD(4)), BYTE)
        bias, multiplier, term, down = (load(b, records, 16 * k, LANES) for k in range(4))
        (sums,) = block_sums(b, has_dot, [row], w, b.udiv(depth, WORD(16)))
        y = scaled_twice(b, b.add(totals(b, sums), bias), multiplier, term, down)
        store(b, b.trunc(clamped(b, y, bounds), FOUR_BYTES), target, 0, 1)

    @inline
    def block(row: Pointer, weights: Pointer, padded: Word, record: Tuple, target: Pointer, bounds: Words) -> None:
        stored(row, weights, padded, (record[0], i32(record[1] * 16)), target, bounds)

    return block


neon_dense = dense("neon_dense", __name__, _row, _block_of(False))
neon_dot_dense = dense("neon_dot_dense", __name__, _row, _block_of(True))
DENSE = DenseArrangement(neon_dense, 16, 16, 1, four_lane_records, None, LEAST)
DOT_DENSE = replace(DENSE, kernel=neon_dot_dense, least=-128)
