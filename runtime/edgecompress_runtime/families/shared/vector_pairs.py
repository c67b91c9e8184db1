"""ADD, SUB and MUL with a vector unit, several vectors of four lanes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.pairs import Pairs, multiplied, pairs, plain_run, summed
from edgecompress_runtime.families.shared.vectors import LANES, vector
from edgecompress_runtime.families.shared.words import BYTE, FOUR, INT8_POINTER, PAIR, WORD, N, load, moved, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Tuple, Word, Words, inline, llvm_code

Values = list[ir.Value]
STEPS = ((1, 1), (1, 0), (0, 1))  # of both operands in a run


class VectorUnit(Protocol):
    """What a sum or a product needs of a vector unit."""

    @property
    def vectors(self) -> int:
        """How many vectors of four lanes a step takes."""

    def high_product(self, b: ir.IRBuilder, x: ir.Value, m: ir.Value, /) -> ir.Value:
        """(2 * x * m + 2**31) >> 32"""

    def shifted(self, b: ir.IRBuilder, x: ir.Value, up: ir.Value, /) -> ir.Value:
        """x << up; negative numbers shift down."""

    def narrowed(self, b: ir.IRBuilder, values: Values, bounds: Values, /) -> ir.Value:
        """Lanes, clamped, as bytes."""


# (builder, unit, both operands, their factors, scale) -> four elements, not yet clamped
Lanes = Callable[[ir.IRBuilder, VectorUnit, Values, Values, Values], ir.Value]


def _summed(b: ir.IRBuilder, unit: VectorUnit, operands: Values, factors: Values, scale: Values) -> ir.Value:
    """pairs.summed of four lanes; the product doubles its sums itself."""
    _, multiplier, term, up = scale
    halves = [b.ashr(f, vector(b, [WORD(1)] * 4)) for f in factors]
    total = b.add(*(b.mul(x, half) for x, half in zip(operands, halves)))
    return unit.shifted(b, b.add(unit.high_product(b, total, multiplier), term), up)


def _multiplied(b: ir.IRBuilder, unit: VectorUnit, operands: Values, factors: Values, scale: Values) -> ir.Value:
    """pairs.multiplied of four lanes."""
    bias, multiplier, term, up = scale
    product = b.add(b.mul(*(b.add(x, factor) for x, factor in zip(operands, factors))), bias)
    rounding = b.add(term, b.ashr(product, vector(b, [WORD(31)] * 4)))
    return unit.shifted(b, b.add(unit.high_product(b, product, multiplier), rounding), up)


def _vector_run(unit: VectorUnit, lanes: Lanes, one: Callable[..., Any]) -> Callable[..., None]:
    each = 4 * unit.vectors
    stored = ir.VectorType(BYTE, each)

    def operand(b: ir.IRBuilder, pointer: ir.Value, step: int) -> Values:
        if step == 0:
            return [vector(b, [b.sext(load(b, pointer, 0, BYTE, 1), WORD)] * 4)] * unit.vectors
        value = load(b, pointer, 0, stored, 1)
        undefined = ir.Constant(stored, ir.Undefined)
        parts = (ir.VectorType(WORD, 4)(list(range(n, n + 4))) for n in range(0, each, 4))
        return [b.sext(b.shuffle_vector(value, undefined, part), LANES) for part in parts]

    def vectors_of(steps: tuple[int, int]) -> Callable[..., None]:
        @llvm_code(types.void(types.UniTuple(INT8_POINTER, 3), N, PAIR, FOUR, PAIR))
        def run(b: ir.IRBuilder, ends: Tuple, count: ir.Value, factors: Tuple, scale: Tuple, bounds: Tuple) -> None:
            """The first count - count % each elements; the rest is left to do."""
            *numbers, down = scale
            spread = [vector(b, [v] * 4) for v in (*numbers, b.sub(WORD(0), down))]
            terms = [vector(b, [v] * 4) for v in factors]
            alike = [None if step else operand(b, x, step) for x, step in zip(ends, steps)]
            loop = Loop(b, b.sdiv(count, WORD(each)), list(ends), [])
            operands = [same or operand(b, x, 1) for x, same in zip(loop.pointers, alike)]
            values = [lanes(b, unit, list(two), terms, spread) for two in zip(*operands)]
            store(b, unit.narrowed(b, values, list(bounds)), loop.pointers[2], 0, 1)
            loop.close([each * step for step in (*steps, 1)], [])

        return run

    both, first, second = map(vectors_of, STEPS)
    rest = plain_run(one)

    @inline
    def run(ends: Tuple, steps: Words, count: Word, factors: Words, scale: Words, bounds: Words) -> None:
        p, q = steps
        whole = i32(count - count % i32(each)) if p + q > 0 else i32(0)
        if p + q == 2:
            both(ends, count, factors, scale, bounds)
        elif p == 1:
            first(ends, count, factors, scale, bounds)
        elif q == 1:
            second(ends, count, factors, scale, bounds)
        behind = moved(ends[0], i32(whole * p)), moved(ends[1], i32(whole * q)), moved(ends[2], whole)
        rest(behind, steps, i32(count - whole), factors, scale, bounds)

    return run


def vector_pairs(names: tuple[str, str], module: str, unit: VectorUnit) -> Pairs:
    """The kernels for a vector unit, to be imported as `names` from `module`."""
    runs = _vector_run(unit, _summed, summed), _vector_run(unit, _multiplied, multiplied)
    return Pairs(*(pairs(name, module, run) for name, run in zip(names, runs)))
