"""ADD and SUB of equal shapes, a vector of elements at a time: `binary.add_int8`, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecompress_runtime.host.division import LEAST_ELEMENTS, divided, part, ranges
from edgecompress_runtime.host.requantise import Rounding, channel_fields
from edgecompress_runtime.host.variants import Variant
from edgecompress_runtime.host.vectors import (
    BIAS,
    NUMBERS,
    Piece,
    constant,
    requantised,
    spread,
    store_clamped,
    widened,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.binary import HEADROOM, add_int8
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.primitives.step import Step
from edgecompress_runtime.primitives.words import INT8_POINTER, LONG

HALF = 2**30, 0  # multiplier and shift of the operand with the larger scale
NOTHING = (0,) * NUMBERS, None


@cache
def sum_kernel(
    variant: Variant, vectors: int, roundings: tuple[Rounding | None, Rounding | None, Rounding], negative: bool
) -> Callable[..., None]:
    """roundings: of a, b and y; None: value << HEADROOM - 1, the zero point being taken off in y's bias."""
    lanes = variant.lanes

    def operand(b: Any, x: Any, at: Any, numbers: Any, rounding: Rounding | None) -> Any:
        value = widened(b, x, at, lanes)
        if rounding is None:
            return b.shl(value, constant(variant, HEADROOM - 1))
        fields = spread(b, variant, cgutils.unpack_tuple(b, numbers))
        raised = b.add(b.shl(value, constant(variant, HEADROOM)), fields[BIAS])
        return requantised(b, variant, raised, fields, rounding)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        left, right, y, at, a_numbers, b_numbers, y_numbers, bounds = args
        at = b.sext(at, LONG)
        fields = spread(b, variant, cgutils.unpack_tuple(b, y_numbers))

        def pieces() -> Iterator[Piece]:
            for vector in range(vectors):
                here = b.add(at, LONG(vector * lanes))
                pair = [operand(b, x, here, numbers, rounding)
                        for x, numbers, rounding in zip((left, right), (a_numbers, b_numbers), roundings)]  # fmt: skip
                total = b.add(b.sub(*pair) if negative else b.add(*pair), fields[BIAS])
                yield Piece(requantised(b, variant, total, fields, roundings[2]), 0, vector, lanes)

        target = b.gep(y, [at])
        store_clamped(b, variant, pieces(), target, LONG(0), *cgutils.unpack_tuple(b, bounds))
        return context.get_dummy_value()

    @intrinsic
    def step(typingctx, a, b, y, at, a_numbers, b_numbers, y_numbers, bounds):
        numbers, two = types.UniTuple(types.int32, NUMBERS), types.UniTuple(types.int32, 2)
        return types.void(*[INT8_POINTER] * 3, types.int32, *[numbers] * 3, two), generate

    width = vectors * lanes

    def kernel(a, b, y, count, a_numbers, b_numbers, y_numbers, bounds):
        """a_numbers, b_numbers, y_numbers: of `requantise.Fields`."""
        whole = i32(i32(count // width) * width)
        for at in range(i32(0), whole, i32(width)):
            step(a, b, y, i32(at), a_numbers, b_numbers, y_numbers, bounds)
        if whole < count:
            step(a, b, y, i32(count - width), a_numbers, b_numbers, y_numbers, bounds)

    kernel.__name__ = "difference" if negative else "sum"
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
    a_scaling, b_scaling, y_scaling = zip(scalings[::2], scalings[1::2])
    if a.shape != y.shape or b.shape != y.shape:
        return None
    bias, found = 0, []
    for zero, scaling, factor in ((a_zero, a_scaling, 1), (b_zero, b_scaling, sign)):
        if scaling == HALF:
            found.append(NOTHING)
            bias -= factor * zero << (HEADROOM - 1)
        else:
            found.append(_one_channel(-zero << HEADROOM, 255 << HEADROOM, scaling, 0))
    # each operand is at most half of its value << HEADROOM
    found.append(_one_channel(bias, 2 * 255 << (HEADROOM - 1), y_scaling, y_zero, low))
    if None in found:
        return None
    numbers, roundings = zip(*found)
    vectors = 4 if variant.pack and y.size >= 4 * variant.lanes else 1
    kernel, width = sum_kernel(variant, vectors, roundings, sign < 0), vectors * variant.lanes
    # the last vectors are computed twice where elements are left over: they must find their operands as they were
    in_place = {t: 0 for t in (a, b) if t.data is None} if y.size % width == 0 else {}
    whole = threads == 1 or y.size < LEAST_ELEMENTS
    steps = []
    for first, last in [(0, y.size)] if whole else ranges(y.size, threads, width):
        here = tuple(part(t, first) for t in (a, b, y))
        steps.append(Step(kernel, (*here, last - first, *numbers, (low, high)), in_place))
    return [divided(steps)]


def _one_channel(
    bias: int, largest: int, scaling: tuple[int, int], zero: int, low: int = -128
) -> tuple[tuple[int, ...], Rounding] | None:
    arrays = (np.array([n], np.int64) for n in (bias, largest, *scaling))
    found = channel_fields(*arrays, zero, low=low)
    return None if found is None else (found.numbers(), found.rounding)
