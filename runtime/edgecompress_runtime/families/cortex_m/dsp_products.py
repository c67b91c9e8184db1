"""BATCH_MATMUL with SMLAD: both matrices are widened to int16 in scratch memory, less their zero points."""

from __future__ import annotations

import numpy as np

from edgecompress_runtime.families.cortex_m.dsp import dot_2x2, widen_less
from edgecompress_runtime.families.shared.matrix_products import MatrixArrangement, MatrixBlocks, matrix_products
from edgecompress_runtime.families.shared.plain_blocks import store_2x2
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.words import moved, store_word
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline


@inline
def _two(low: Word, high: Word) -> Word:
    return i32((low & i32(0xFFFF)) | i32(high << i32(16)))


@inline
def _line(source: Pointer, target: Pointer, depth: Words, steps: Words, zero: Word) -> None:
    """depth[0] int8, steps[0] bytes apart, less `zero`, as int16 in the order of `widen`, then zeros; steps[1]: bytes
    from one four to the next."""
    taken, (step, four) = depth[0], steps
    whole = i32(taken // i32(4))
    if step == 1:
        widen_less(source, target, (whole, four), _two(-zero, -zero))
    else:
        for f in range(whole):
            at, to = i32(f * 4 * step), i32(f * four)
            low = i32(source[at] - zero), i32(source[i32(at + 2 * step)] - zero)
            high = i32(source[i32(at + step)] - zero), i32(source[i32(at + 3 * step)] - zero)
            store_word(target, to, _two(low[0], low[1]))
            store_word(target, i32(to + 4), _two(high[0], high[1]))
    if taken % i32(4):
        at, to = i32(whole * 4 * step), i32(whole * four)
        second = i32(source[i32(at + step)] - zero) if taken % i32(4) > 1 else i32(0)
        third = i32(source[i32(at + 2 * step)] - zero) if taken % i32(4) > 2 else i32(0)
        store_word(target, to, _two(i32(source[at] - zero), third))
        store_word(target, i32(to + 4), second & i32(0xFFFF))


@inline
def _left(source: Pointer, strip: Pointer, depth: Words, steps: Words, zeros: Words) -> Tuple:
    second = moved(strip, i32(depth[1] * 2))
    _line(source, strip, depth, (steps[1], i32(8)), zeros[0])
    _line(moved(source, steps[0]), second, depth, (steps[1], i32(8)), zeros[0])
    return strip, i32(depth[1] * 2)


@inline
def _right(source: Pointer, memory: Tuple, columns: Word, depth: Words, strides: Words, zeros: Words) -> Pointer:
    """Two columns by turns, four values each; the last two columns are a group, too."""
    bank, _ = memory
    for group in range(i32(i32(columns + 1) // i32(2))):
        first = min(i32(group * 2), i32(columns - 2))
        for o in range(2):
            target = moved(bank, i32(group * depth[1] * 4 + o * 8))
            _line(moved(source, i32((first + o) * strides[0])), target, depth, (strides[1], i32(16)), zeros[1])
    return bank


@inline
def _block(rows: Tuple, weights: Pointer, column: Word, depth: Word, record: Pointer, target: Tuple) -> None:
    pair = moved(weights, i32(i32(i32(column + 1) // i32(2)) * depth * 4))
    sums = dot_2x2(rows, pair, i32(depth // i32(4)), (record[0], record[0]))
    store_2x2(sums, (record, i32(0)), target, (i32(-128), i32(127)))


def _record(scales: Scaling) -> np.ndarray:
    return np.tile(scales.records().reshape(-1), 2)


BLOCKS = MatrixBlocks(2, 2, _left, _right, _block)
dsp_products = matrix_products("dsp_products", __name__, BLOCKS)
PRODUCTS = MatrixArrangement(dsp_products, BLOCKS, 2, 4, _record)
