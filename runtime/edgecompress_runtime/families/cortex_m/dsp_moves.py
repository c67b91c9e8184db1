"""Copies and MAX_POOL_2D with the DSP extension: four bytes are a word."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.dsp import copy_words
from edgecompress_runtime.families.shared.copies import Copies, run_copies
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.pools import MaxPools, max_pools
from edgecompress_runtime.families.shared.words import FOUR, INT8_POINTER, PAIR, WORD, function, load, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline, llvm_code


@inline
def _copy(source: Pointer, target: Pointer, n: Word) -> None:
    whole = i32(n // i32(4))
    copy_words(source, target, whole)
    for c in range(i32(whole * 4), n):
        target[c] = source[c]


def _chosen(b: ir.IRBuilder, x: ir.Value, y: ir.Value, *, larger: bool) -> ir.Value:
    """The larger or smaller bytes of two words: SSUB8 leaves in flags which are larger, SEL takes these."""
    subtract, select = (function(b, f"llvm.arm.{name}", WORD, WORD, WORD) for name in ("ssub8", "sel"))
    b.call(subtract, [x, y])
    return b.call(select, [x, y] if larger else [y, x])


@llvm_code(types.void(INT8_POINTER, FOUR, INT8_POINTER, PAIR))
def _block(b: ir.IRBuilder, x: ir.Value, window: Tuple, y: ir.Value, bounds: Tuple) -> None:
    rows, row_step, columns, column_step = window
    low, high = (b.mul(b.and_(v, WORD(0xFF)), WORD(0x01010101)) for v in bounds)
    outer = Loop(b, rows, [x], [low])
    inner = Loop(b, columns, [outer.pointers[0]], [outer.values[0]])
    best = _chosen(b, inner.values[0], load(b, inner.pointers[0], 0, WORD, 1), larger=True)
    _, (best,) = inner.close([column_step], [best])
    _, (best,) = outer.close([row_step], [best])
    store(b, _chosen(b, best, high, larger=False), y, 0, 1)


dsp_copies = run_copies("dsp_copies", __name__, _copy)
COPIES = Copies(dsp_copies)
dsp_max_pool = max_pools("dsp_max_pool", __name__, _block, 4)
MAX_POOL = MaxPools({4: dsp_max_pool})
