"""ADD and SUB with a vector unit, several vectors of four lanes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.addition import added
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.vectors import LANES, vector
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, PAIR, WORD, N, load, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, llvm_code

Values = list[ir.Value]


class VectorUnit(Protocol):
    """What an addition needs of a vector unit."""

    @property
    def vectors(self) -> int:
        """How many vectors of four lanes a step takes."""

    def high_product(self, b: ir.IRBuilder, x: ir.Value, m: ir.Value, /) -> ir.Value:
        """(2 * x * m + 2**31) >> 32"""

    def shifted(self, b: ir.IRBuilder, x: ir.Value, up: ir.Value, /) -> ir.Value:
        """x << up; negative numbers shift down."""

    def narrowed(self, b: ir.IRBuilder, values: Values, bounds: Values, /) -> ir.Value:
        """Lanes, clamped, as bytes."""


def addition(name: str, module: str, unit: VectorUnit) -> Callable[..., None]:
    """The kernel for a vector unit, to be imported as `name` from `module`; as addition.add_elements."""
    each = 4 * unit.vectors
    stored = ir.VectorType(BYTE, each)

    def widened(b: ir.IRBuilder, pointer: ir.Value) -> Values:
        value = load(b, pointer, 0, stored, 1)
        undefined = ir.Constant(stored, ir.Undefined)
        parts = (ir.VectorType(WORD, 4)(list(range(n, n + 4))) for n in range(0, each, 4))
        return [b.sext(b.shuffle_vector(value, undefined, part), LANES) for part in parts]

    @llvm_code(types.void(types.UniTuple(INT8_POINTER, 3), N, PAIR, types.UniTuple(N, 3), PAIR))
    def add_vectors(
        b: ir.IRBuilder, tensors: Tuple, count: ir.Value, slopes: Tuple, scale: Tuple, bounds: Tuple
    ) -> None:
        """The first count - count % each elements; the rest is left to do."""
        # the product doubles its sums itself
        factors = [vector(b, [b.ashr(v, WORD(1))] * 4) for v in slopes]
        multiplier, term, down = scale
        multiplier, term, up = (vector(b, [v] * 4) for v in (multiplier, term, b.sub(WORD(0), down)))
        loop, values = Loop(b, b.sdiv(count, WORD(each)), list(tensors), []), []
        for pair in zip(*(widened(b, p) for p in loop.pointers[:2])):
            total = b.add(*(b.mul(v, factor) for v, factor in zip(pair, factors)))
            scaled = b.add(unit.high_product(b, total, multiplier), term)
            values.append(unit.shifted(b, scaled, up))
        store(b, unit.narrowed(b, values, list(bounds)), loop.pointers[2], 0, 1)
        loop.close([each] * 3, [])

    def kernel(tensors: Tuple, count: Word, slopes: Words, record: Pointer, down: Word, bounds: Words) -> None:
        a, b, y = tensors
        scale = record[0], record[1], down
        add_vectors(tensors, count, slopes, scale, bounds)
        for i in range(i32(count - count % i32(each)), count):
            y[i] = added(a[i], b[i], slopes, scale, bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel
