"""ADD and SUB of equal shapes, vectors of elements at a time: `binary.add_int8`, bit for bit.

It rounds three times: each operand, and their sum. But there are no more than 65,536 pairs of int8, and for nearly
every choice of scales two whole numbers A and B and a term can be found with which (a * A + b * B) * multiplier + term,
rounded down once, gives the same for all of them. So they are searched, and every pair is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecompress_runtime.host.division import LEAST_ELEMENTS, divided, part, ranges
from edgecompress_runtime.host.requantise import RAISED, Fields, Rounding
from edgecompress_runtime.host.variants import Variant
from edgecompress_runtime.host.vectors import (
    BIAS,
    NUMBERS,
    Piece,
    requantised,
    splat,
    spread,
    store_clamped,
    widened,
)
from edgecompress_runtime.kernels.arithmetic import i32, requantized
from edgecompress_runtime.kernels.binary import HEADROOM, add_int8
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.primitives.step import Step
from edgecompress_runtime.primitives.words import INT8_POINTER, LONG

NEAR = sorted(product(range(-3, 4), repeat=2), key=lambda pair: sum(n * n for n in pair))  # slopes that are tried
MOST_DOWN = 22
Scaling = tuple[int, int]  # multiplier, shift


@dataclass(frozen=True, eq=False)
class Linear:
    """a * slopes[0] + b * slopes[1], requantised."""

    slopes: tuple[int, int]
    fields: Fields


def linear(
    zeros: tuple[int, int, int], scalings: tuple[Scaling, Scaling, Scaling], sign: int, bounds: tuple[int, int]
) -> Linear | None:
    """zeros, scalings: of a, b and y, as `add_int8` has them. None where nothing was found."""
    bytes_, factors = np.arange(-128, 128, dtype=np.int64), (1, sign)
    a, b = (f * requantized((bytes_ - z) << HEADROOM, *s) for f, z, s in zip(factors, zeros, scalings))
    exact = np.clip(requantized(a[:, None] + b, *scalings[2]) + zeros[2], *bounds).reshape(-1)
    order = np.argsort(exact, kind="stable")
    outputs, starts = np.unique(exact[order], return_index=True)
    rise = [(int(n[-1]) - int(n[0])) / 255 for n in (a, b)]
    multiplier, shift = scalings[2]
    # as many bits as fit: 128 * (|A| + |B|) < 2**30, and y << 32 + down, with all that is added to it, in 64
    finer = int(np.floor(np.log2((RAISED / 128 - 8) / max(sum(map(abs, rise)), 1.0))))
    finer = min(finer, MOST_DOWN + shift)
    down = finer - shift
    if not 0 <= down <= 30:
        return None
    for near in NEAR:
        slopes = tuple(round(n * 2.0**finer) + step for n, step in zip(rise, near))
        sums = (bytes_[:, None] * slopes[0] + bytes_ * slopes[1]).reshape(-1)[order]
        extremes = zip(outputs, np.minimum.reduceat(sums, starts), np.maximum.reduceat(sums, starts))
        least, most = -(2**62), 2**62  # of the term, with which each sum gets where it belongs
        for y, smallest, largest in ([int(n) for n in numbers] for numbers in extremes):
            if y > bounds[0]:
                least = max(least, (y << down + 32) - smallest * 2 * multiplier)
            if y < bounds[1]:
                most = min(most, (y + 1 << down + 32) - largest * 2 * multiplier - 1)
        if least <= most:
            term = (least + most) // 2 - RAISED * 2 * multiplier
            numbers = (np.array([n]) for n in (RAISED, 2 * multiplier, term, down, 0, 0))
            return Linear(slopes, Fields(*numbers, Rounding.FLOOR))
    return None


@cache
def sum_kernel(variant: Variant, vectors: int, name: str) -> Callable[..., None]:
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
        """slopes, numbers: of `Linear`, the latter its fields'."""
        whole = i32(i32(count // width) * width)
        for at in range(i32(0), whole, i32(width)):
            step(a, b, y, i32(at), slopes, numbers, bounds)
        if whole < count:
            step(a, b, y, i32(count - width), slopes, numbers, bounds)

    kernel.__name__ = name
    return kernel


def prepare_sum(
    kind: str, variant: Variant, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor],
    options: Mapping[str, Any],
) -> list[Step] | None:  # fmt: skip
    """Of the ordinary kernel's arguments."""
    (call,), (y,) = KERNELS[kind](inputs, outputs, options), outputs
    if call.kernel is not add_int8 or y.size < variant.lanes:
        return None
    a, b, _, _, _, _, a_zero, b_zero, y_zero, *scalings, sign, low, high = call.arguments
    if a.shape != y.shape or b.shape != y.shape:
        return None
    found = linear((a_zero, b_zero, y_zero), tuple(zip(scalings[::2], scalings[1::2])), sign, (low, high))
    if found is None:
        return None
    vectors = 4 if variant.pack and y.size >= 4 * variant.lanes else 1
    kernel, width = sum_kernel(variant, vectors, "sum" if sign > 0 else "difference"), vectors * variant.lanes
    # the last vectors are computed twice where elements are left over: they must find their operands as they were
    in_place = {t: 0 for t in (a, b) if t.data is None} if y.size % width == 0 else {}
    whole = threads == 1 or y.size < LEAST_ELEMENTS
    steps = []
    for first, last in [(0, y.size)] if whole else ranges(y.size, threads, width):
        here = tuple(part(t, first) for t in (a, b, y))
        numbers = found.fields.numbers()
        steps.append(Step(kernel, (*here, last - first, found.slopes, numbers, (low, high)), in_place))
    return [divided(steps)]
