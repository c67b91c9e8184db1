"""ADD and SUB of equal shapes, vectors of elements at a time, as one weighted sum (linear_sum.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.division import LEAST_ELEMENTS, divided, part, ranges
from edgecompress_runtime.families.shared.linear_sum import linear_sum
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.vectors import splat
from edgecompress_runtime.families.shared.words import INT8_POINTER, LONG, PAIR, N
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_requantize import RAISED, Fields, Rounding
from edgecompress_runtime.families.x86.x86_vectors import (
    BIAS,
    NUMBERS,
    Piece,
    requantized,
    spread,
    store_clamped,
    widened,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.llvm.typed_numba import Tuple, Word, Words, llvm_code
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor


@cache
def _sum_kernel(variant: Variant, vectors: int) -> Callable[..., None]:
    lanes = variant.lanes

    @llvm_code(types.void(types.UniTuple(INT8_POINTER, 3), N, PAIR, types.UniTuple(N, NUMBERS), PAIR))
    def step(b: ir.IRBuilder, tensors: Tuple, at: ir.Value, slopes: Tuple, numbers: Tuple, bounds: Tuple) -> None:
        *operands, y = tensors
        at = b.sext(at, LONG)
        fields = spread(b, variant, numbers)
        factors = [splat(b, slope, lanes) for slope in slopes]

        def pieces() -> Iterator[Piece]:
            for vector in range(vectors):
                here = b.add(at, LONG(vector * lanes))
                terms = [b.mul(widened(b, x, here, lanes), factor) for x, factor in zip(operands, factors)]
                total = b.add(b.add(*terms), fields[BIAS])
                yield Piece(requantized(b, variant, total, fields, Rounding.FLOOR), 0, vector, lanes)

        store_clamped(b, variant, pieces(), (b.gep(y, [at]), LONG(0)), bounds)

    width = vectors * lanes

    def kernel(tensors: Tuple, count: Word, slopes: Words, numbers: Words, bounds: Words) -> None:
        """tensors: a, b, y. numbers: of `x86_requantize.Fields`."""
        whole = i32(i32(count // width) * width)
        for at in range(i32(0), whole, i32(width)):
            step(tensors, i32(at), slopes, numbers, bounds)
        if whole < count:
            step(tensors, i32(count - width), slopes, numbers, bounds)

    kernel.__name__ = "sum"
    return kernel


def prepare_sum(
    kind: str, variant: Variant, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
) -> list[Step] | None:
    """Threads share its elements. None for operands that are broadcast, where
    linear_sum finds no sum, and for fewer elements than a vector has."""
    (call,), (y,) = KERNELS[kind](inputs, outputs, options), outputs
    if any(t.shape != y.shape for t in inputs[:2]):
        return None
    found = linear_sum(call, y)
    if found is None or y.size < variant.lanes:
        return None
    # its sums have a sign, which `requantized` wants taken off
    numbers = RAISED, found.multiplier, found.term - RAISED * found.multiplier, found.down
    bias, multiplier, term, down = (np.array([n]) for n in numbers)
    none = np.array([0])
    fields = Fields(bias, multiplier, term, down, none, none, Rounding.FLOOR).numbers()
    vectors = 4 if variant.pack and y.size >= 4 * variant.lanes else 1
    kernel, width = _sum_kernel(variant, vectors), vectors * variant.lanes
    operands, whole = (found.a, found.b), threads == 1 or y.size < LEAST_ELEMENTS
    # operands must stay as they were: for the last vectors, computed twice where elements are left over, and for the
    # other threads, as y may start in front of an operand and end within it
    alone = whole and y.size % width == 0
    in_place = {t: 0 for t in operands if t.data is None} if alone else {}
    steps = []
    for first, last in [(0, y.size)] if whole else ranges(y.size, threads, width):
        here = tuple(part(t, first) for t in (*operands, y))
        steps.append(Step(kernel, (here, last - first, found.slopes, fields, found.bounds), in_place))
    return [divided(steps)]
