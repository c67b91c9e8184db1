"""ADD and SUB of equal shapes, a vector of elements at a time: `binary.add_int8`, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    DOWN,
    MULTIPLIER,
    clamped,
    constant,
    paired,
    requantised,
    splat,
    store_bytes,
    upper_product,
    widened,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.binary import HEADROOM, add_int8
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.primitives.step import Step
from edgecompress_runtime.primitives.words import INT8_POINTER, LONG

HALF = 2**30, 0  # multiplier and shift of the operand with the larger scale


def operand(b: Any, variant: Variant, value: Any, scaling: Any, half: bool) -> Any:
    """requantize((value - zero) << HEADROOM, multiplier, -down) of int32 lanes; half: it is a halving."""
    zero, multiplier, down = (splat(b, s, variant.lanes) for s in scaling)
    centred = b.sub(value, zero)
    if half:
        return b.shl(centred, constant(variant, HEADROOM - 1))
    halves = b.shl(constant(variant, 1), b.sub(down, constant(variant, 1)))
    term = paired(b, variant, constant(variant, -(2**31)), halves)
    high = upper_product(b, variant, b.shl(centred, constant(variant, HEADROOM + 1)), multiplier, term)
    return b.ashr(b.add(high, b.ashr(centred, constant(variant, 31))), down)


@cache
def sum_kernel(
    variant: Variant, a_half: bool, b_half: bool, negative: bool, rounding: Rounding
) -> Callable[..., None]:
    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        left, right, y, at, a_scaling, b_scaling, y_scaling, bounds = args
        at = b.sext(at, LONG)
        terms = [operand(b, variant, widened(b, x, at, variant.lanes), cgutils.unpack_tuple(b, s), half)
                 for x, s, half in ((left, a_scaling, a_half), (right, b_scaling, b_half))]  # fmt: skip
        total = b.sub(*terms) if negative else b.add(*terms)
        fields = [splat(b, s, variant.lanes) for s in cgutils.unpack_tuple(b, y_scaling)]
        value = requantised(b, variant, total, [None, *fields, None, None], rounding)
        store_bytes(b, clamped(b, value, *cgutils.unpack_tuple(b, bounds)), y, at, variant.lanes)
        return context.get_dummy_value()

    @intrinsic
    def step(typingctx, a, b, y, at, a_scaling, b_scaling, y_scaling, bounds):
        two, three, four = (types.UniTuple(types.int32, count) for count in (2, 3, 4))
        pointers = [INT8_POINTER] * 3
        return types.void(*pointers, types.int32, three, three, four, two), generate

    lanes = variant.lanes

    def kernel(a, b, y, count, a_scaling, b_scaling, y_scaling, bounds):
        """a_scaling, b_scaling: (zero, multiplier, down); y_scaling: fields of `requantised`, from the multiplier to
        `down`."""
        whole = i32(i32(count // lanes) * lanes)
        for at in range(i32(0), whole, i32(lanes)):
            step(a, b, y, i32(at), a_scaling, b_scaling, y_scaling, bounds)
        if whole < count:
            step(a, b, y, i32(count - lanes), a_scaling, b_scaling, y_scaling, bounds)

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
    a_scaling, b_scaling, (y_multiplier, y_shift) = (tuple(pair) for pair in zip(scalings[::2], scalings[1::2]))
    if a.shape != y.shape or b.shape != y.shape:
        return None
    if any(s != HALF and not -30 <= s[1] < 0 for s in (a_scaling, b_scaling)):
        return None
    # each operand is at most half of its value << HEADROOM
    largest, nothing = np.array([2 * 255 << (HEADROOM - 1)]), np.zeros(1, np.int64)
    found = channel_fields(nothing, largest, np.array([y_multiplier]), np.array([y_shift]), y_zero, low=low)
    if found is None or found[1] is Rounding.TWICE_UP:
        return None
    kernel = sum_kernel(variant, a_scaling == HALF, b_scaling == HALF, sign < 0, found[1])
    y_fields = tuple(int(n) for n in found[0][MULTIPLIER : DOWN + 1, 0])
    rest = ((a_zero, a_scaling[0], -a_scaling[1]), (b_zero, b_scaling[0], -b_scaling[1]), y_fields, (low, high))
    # the last vector is computed twice where elements are left over: it must find its operands as they were
    in_place = {t: 0 for t in (a, b) if t.data is None} if y.size % variant.lanes == 0 else {}
    whole = threads == 1 or y.size < LEAST_ELEMENTS
    steps = []
    for first, last in [(0, y.size)] if whole else ranges(y.size, threads, variant.lanes):
        here = tuple(part(t, first) for t in (a, b, y))
        steps.append(Step(kernel, (*here, last - first, *rest), in_place))
    return [divided(steps)]
