"""Copies and MAX_POOL_2D with Helium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.helium import ChosenBytes, copy_vectors
from edgecompress_runtime.families.shared.copies import Copies, run_copies
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.pools import MaxPools, max_pools
from edgecompress_runtime.families.shared.vectors import splat
from edgecompress_runtime.families.shared.words import (
    BYTE,
    FOUR,
    HALF,
    INT8_POINTER,
    PAIR,
    N,
    function,
    load,
    moved,
    store,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline, llvm_code


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, N))
def _copy_few(b: ir.IRBuilder, source: ir.Value, target: ir.Value, count: ir.Value) -> None:
    """Fewer than 16 bytes."""
    taken = ChosenBytes(b, count)
    taken.store(taken.load(source, 0), target)


@inline
def _copy(source: Pointer, target: Pointer, n: Word) -> None:
    copy_vectors(source, target, i32(n // i32(16)))
    if n % i32(16):
        whole = i32(n - n % i32(16))
        _copy_few(moved(source, whole), moved(target, whole), i32(n % i32(16)))


def _largest(lanes: int) -> Callable[..., Any]:
    """`pools.max_pools`' block of 16 channels, or of 8 or 4 as wider lanes."""
    stored, kind = ir.VectorType(BYTE, lanes), ir.VectorType({16: BYTE, 8: HALF, 4: ir.IntType(32)}[lanes], lanes)

    @llvm_code(types.void(INT8_POINTER, FOUR, INT8_POINTER, PAIR))
    def block(b: ir.IRBuilder, x: ir.Value, window: Tuple, y: ir.Value, bounds: Tuple) -> None:
        rows, row_step, columns, column_step = window
        larger, smaller = (function(b, f"llvm.{m}.v{lanes}i{128 // lanes}", kind, kind, kind) for m in ("smax", "smin"))
        low, high = (splat(b, b.trunc(v, kind.element) if lanes > 4 else v, lanes) for v in bounds)
        outer = Loop(b, rows, [x], [low])
        inner = Loop(b, columns, [outer.pointers[0]], [outer.values[0]])
        value = load(b, inner.pointers[0], 0, stored, 1)
        value = value if lanes == 16 else b.sext(value, kind)
        _, best = inner.close([column_step], [b.call(larger, [inner.values[0], value])])
        _, best = outer.close([row_step], best)
        result = b.call(smaller, [best[0], high])
        store(b, result if lanes == 16 else b.trunc(result, stored), y, 0, 1)

    return block


helium_copies = run_copies("helium_copies", __name__, _copy)
COPIES = Copies(helium_copies)
helium_max_pool_16 = max_pools("helium_max_pool_16", __name__, _largest(16), 16)
helium_max_pool_8 = max_pools("helium_max_pool_8", __name__, _largest(8), 8)
helium_max_pool_4 = max_pools("helium_max_pool_4", __name__, _largest(4), 4)
MAX_POOL = MaxPools({16: helium_max_pool_16, 8: helium_max_pool_8, 4: helium_max_pool_4})
