"""Weights that are only -1 and 1, or -1, 0 and 1, as bits in flash: Helium's predicates make vectors of them.

A code has 16 bits for every 16 weights, 1 for 1, in the order in which a block reads the weights; where weights may be
0, 16 more bits follow, 1 for -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.coding import Coded, CodedWeights
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.vectors import BYTES
from edgecompress_runtime.families.shared.words import HALF, INT8_POINTER, WORD, N, function, load, moved, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline, llvm_code

TOGETHER = 16
PREDICATE = ir.VectorType(ir.IntType(1), TOGETHER)


def _expander(bits: int) -> Callable[..., Any]:
    """For Numba code: (code, target, vectors), int8 weights from `bits` bits each."""

    @llvm_code(types.void(INT8_POINTER, INT8_POINTER, N))
    def expanded(b: ir.IRBuilder, code: ir.Value, target: ir.Value, vectors: ir.Value) -> None:
        loop = Loop(b, vectors, [code, target], [])
        source, at = loop.pointers
        chosen = function(b, "llvm.arm.mve.pred.i2v.v16i1", PREDICATE, WORD)
        value = BYTES([-1 if bits == 1 else 0] * TOGETHER)
        for plane, sign in ((1, -1), (0, 1))[2 - bits :]:
            word = b.zext(load(b, source, 2 * plane, HALF, 2), WORD)
            value = b.select(b.call(chosen, [word]), BYTES([sign] * TOGETHER), value)
        store(b, value, at, 0, 1)
        loop.close([2 * bits, TOGETHER], [])

    return expanded


def bank_of(bits: int) -> Callable[..., Any]:
    """Blocks.bank for such weights, as int8; w: (code,)."""
    expanded = _expander(bits)

    @inline
    def bank_of_signs(w: Tuple, bank: Pointer, first: Word, pairs: Word, depth: Word) -> Pointer:
        start = moved(w[0], i32(first * depth * bits // i32(4)))
        expanded(start, bank, i32(pairs * depth // i32(8)))
        return bank

    return bank_of_signs


def four_channels_of(bits: int) -> Callable[..., Any]:
    """`decode` of arranged_dense.dense_coded for such weights; w: (code, memory)."""
    expanded = _expander(bits)

    @inline
    def four_channels(w: Tuple, count: Word, group: Word) -> Pointer:
        code, memory = w
        expanded(moved(code, i32(group * count * bits // i32(8))), memory, i32(count // i32(16)))
        return memory

    return four_channels


@dataclass(frozen=True)
class Signs(Coded):
    """How an arrangement's weights are held in `bits` bits each."""

    bits: int = 1

    def __call__(self, weights: np.ndarray, *, memory: int = 0) -> CodedWeights | None:
        """None for other weights."""
        flat = weights.reshape(-1)
        if np.abs(flat).max(initial=0) > 1 or (self.bits == 1 and not flat.all()):
            return None
        planes = [flat == sign for sign in (1, -1)[: self.bits]]
        packed = np.stack([np.packbits(p, bitorder="little").reshape(-1, 2) for p in planes], 1)
        code = packed.reshape(-1).view(np.int8)
        return CodedWeights(self, code, flat.size - code.size, memory)
