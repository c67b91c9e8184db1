"""ADD and SUB of equal shapes, vectors of elements at a time, as one weighted sum (linear_sum.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.division import LEAST_ELEMENTS, divided, part, ranges
from edgecompress_runtime.families.shared.linear_sum import linear_sum
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.words import INT8_POINTER, LONG
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_requantize import RAISED, Fields, Rounding
from edgecompress_runtime.families.x86.x86_vectors import (
    BIAS,
    NUMBERS,
    Piece,
    requantised,
    splat,
    spread,
    store_clamped,
    widened,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.plan import Tensor


@cache
def sum_kernel(variant: Variant, vectors: int) -> Callable[..., None]:
    lanes = variant.lanes

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        left, right, y, at, slopes, numbers, bounds = args
        at = b.sext(at, LONG)
        fields = spread(b, variant, cgutils.unpack_tuple(b, numbers))
        factors = [splat(b, slope, lanes) for slope in cgutils.unpack_tuple(b, slopes)]

        def pieces() -> Iterator[Piece]:
            for vector in range(vectors):
                here = b.add(at, LONG(vector * lanes))
                terms = [b.mul(widened(b, x, here, lanes), factor) for x, factor in zip((left, right), factors)]
                total = b.add(b.add(*terms), fields[BIAS])
                yield Piece(requantised(b, variant, total, fields, Rounding.FLOOR), 0, vector, lanes)

        store_clamped(b, variant, pieces(), b.gep(y, [at]), LONG(0), *cgutils.unpack_tuple(b, bounds))
        return context.get_dummy_value()

    @intrinsic
    def step(typingctx, a, b, y, at, slopes, numbers, bounds):
        two, more = types.UniTuple(types.int32, 2), types.UniTuple(types.int32, NUMBERS)
        return types.void(*[INT8_POINTER] * 3, types.int32, two, more, two), generate

    width = vectors * lanes

    def kernel(a, b, y, count, slopes, numbers, bounds):
        """numbers: of `requantise.Fields`."""
        whole = i32(i32(count // width) * width)
        for at in range(i32(0), whole, i32(width)):
            step(a, b, y, i32(at), slopes, numbers, bounds)
        if whole < count:
            step(a, b, y, i32(count - width), slopes, numbers, bounds)

    kernel.__name__ = "sum"
    return kernel


def prepare_sum(
    kind: str,
    variant: Variant,
    threads: int,
    inputs: Sequence[Any],
    outputs: Sequence[Tensor],
    options: Mapping[str, Any],
) -> list[Step] | None:
    (call,), (y,) = KERNELS[kind](inputs, outputs, options), outputs
    found = linear_sum(call, y)
    if found is None or y.size < variant.lanes:
        return None
    # its sums have a sign, which `requantised` wants taken off
    numbers = RAISED, found.multiplier, found.term - RAISED * found.multiplier, found.down, 0, 0
    fields = Fields(*(np.array([n]) for n in numbers), Rounding.FLOOR).numbers()
    vectors = 4 if variant.pack and y.size >= 4 * variant.lanes else 1
    kernel, width = sum_kernel(variant, vectors), vectors * variant.lanes
    operands, whole = (found.a, found.b), threads == 1 or y.size < LEAST_ELEMENTS
    # operands must stay as they were: for the last vectors, computed twice where elements are left over, and for the
    # other threads, as y may start in front of an operand and end within it
    alone = whole and y.size % width == 0
    in_place = {t: 0 for t in operands if t.data is None} if alone else {}
    steps = []
    for first, last in [(0, y.size)] if whole else ranges(y.size, threads, width):
        here = tuple(part(t, first) for t in (*operands, y))
        steps.append(Step(kernel, (*here, last - first, found.slopes, fields, found.bounds), in_place))
    return [divided(steps)]
