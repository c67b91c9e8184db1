"""BATCH_MATMUL with Helium: one row by four columns. Zero points are taken out of sums: a row's and a column's own."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.helium import dot, fill_vectors, scaled_twice, turned_eight
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.matrix_products import MatrixArrangement, MatrixBlocks, matrix_products
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.vectors import BYTES, FOUR_BYTES, LANES, clamped, vector
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    WORD,
    N,
    address,
    load,
    moved,
    store,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code


@llvm_code(N(INT8_POINTER, N))
def _sum(b: ir.IRBuilder, x: ir.Value, vectors: ir.Value) -> ir.Value:
    """Of 16 * vectors bytes."""
    loop = Loop(b, vectors, [x], [WORD(0)])
    total = dot(b, loop.values[0], load(b, loop.pointers[0], 0, BYTES, 1), BYTES([1] * 16))
    return loop.close([16], [total])[1][0]


@inline
def _line(source: Pointer, target: Pointer, depth: Words, stride: Word) -> None:
    """depth[0] bytes, then zeros."""
    for c in range(depth[0]):
        target[c] = source[i32(c * stride)]
    for c in range(depth[0], depth[1]):
        target[c] = 0


@inline
def _left(source: Pointer, strip: Pointer, depth: Words, steps: Words, zeros: Words) -> Tuple:
    """A row where it lies, if it can be read in whole vectors, and the term of b's zero point."""
    if depth[0] != depth[1] or steps[1] != 1:
        _line(source, strip, depth, steps[1])
        return strip, i32(-zeros[1] * _sum(strip, i32(depth[1] // i32(16))))
    return source, i32(-zeros[1] * _sum(source, i32(depth[1] // i32(16))))


@inline
def _right(source: Pointer, memory: Tuple, columns: Word, depth: Words, strides: Words, zeros: Words) -> Tuple:
    bank, terms = memory
    taken, deep = depth
    column = strides[0] if strides[1] == 1 and taken == deep else deep
    held = source if strides[1] == 1 and taken == deep else bank
    if not (strides[1] == 1 and taken == deep):
        if strides[0] == 1:
            if taken != deep:
                fill_vectors(bank, i32(columns * deep // i32(16)), i32(0))
            whole = i32(columns - columns % i32(8))
            for o in range(i32(0), whole, i32(8)):
                turned_eight((moved(source, o), strides[1]), taken, (moved(bank, i32(o * deep)), i32(1)), deep)
            for o in range(whole, columns):
                _line(moved(source, o), moved(bank, i32(o * deep)), depth, strides[1])
        else:
            for o in range(columns):
                _line(moved(source, i32(o * strides[0])), moved(bank, i32(o * deep)), depth, strides[1])
    for o in range(columns):
        total = _sum(moved(held, i32(o * column)), i32(deep // i32(16)))
        terms[o] = i32(zeros[0] * i32(zeros[1] * taken - total))
    return held, column, terms


@llvm_code(
    types.void(
        INT8_POINTER, types.Tuple([INT8_POINTER, N]), N, INT32_POINTER, types.Tuple([INT32_POINTER, N]), INT8_POINTER
    )
)
def _row_by_four(
    b: ir.IRBuilder, x: ir.Value, w: Tuple, depth: ir.Value, record: ir.Value, terms: Tuple, target: ir.Value
) -> None:
    """w: the first column, and bytes to the next. terms: those of the columns, and that of the row."""
    first, step = w
    pointers = [address(b, first, b.mul(step, WORD(o)), BYTE) for o in range(4)]
    loop = Loop(b, b.udiv(depth, WORD(16)), [x, *pointers], [WORD(0)] * 4)
    value, *ws = (load(b, p, 0, BYTES, 1) for p in loop.pointers)
    sums = [dot(b, s, value, weight) for s, weight in zip(loop.values, ws)]
    _, sums = loop.close([16] * 5, sums)
    bias, multiplier, term, up = (load(b, record, 4 * k, WORD) for k in range(4))
    total = b.add(vector(b, sums), load(b, terms[0], 0, LANES))
    total = b.add(total, vector(b, [b.add(terms[1], bias)] * 4))
    y = scaled_twice(b, total, *(vector(b, [v] * 4) for v in (multiplier, term, up)))
    store(b, b.trunc(clamped(b, y, (WORD(-128), WORD(127))), FOUR_BYTES), target, 0, 1)


@llvm_code(INT32_POINTER(INT32_POINTER, N))
def _word(b: ir.IRBuilder, pointer: ir.Value, number: ir.Value) -> ir.Value:
    return b.gep(pointer, [number])


@inline
def _block(rows: Tuple, weights: Tuple, column: Word, depth: Word, record: Pointer, target: Tuple) -> None:
    held, step, terms = weights
    columns = moved(held, i32(column * step)), step
    _row_by_four(rows[0], columns, depth, record, (_word(terms, column), rows[1]), target[0])


def _record(scales: Scaling) -> np.ndarray:
    return (scales.records() * np.array([1, 1, 1, -1], np.int32)).reshape(-1)


BLOCKS = MatrixBlocks(1, 4, _left, _right, _block)
helium_products = matrix_products("helium_products", __name__, BLOCKS)
PRODUCTS = MatrixArrangement(helium_products, BLOCKS, 1, 16, _record)
