"""ADD and SUB of equal shapes, in any family: `binary.add_int8` with its constants worked out at build time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numba import njit

from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.kernels.binary import HEADROOM, add_int8
from edgecompress_runtime.kernels.registry import Call
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.primitives.scaling import scaled_twice, scaling
from edgecompress_runtime.primitives.step import Step
from edgecompress_runtime.primitives.words import rounded_high_product

HALF = 2**30  # multiplier of the operand with the larger scale, with shift 0


@njit(inline="always")
def operand(value, scaling):
    """requantize((value - zero) << HEADROOM)"""
    zero, multiplier, down = scaling
    centred = i32(value - zero)
    if multiplier == HALF and down == 0:
        return i32(centred << i32(HEADROOM - 1))
    if down == 0:
        return rounded_high_product(i32(centred << i32(HEADROOM + 1)), multiplier, i32(0))
    return scaled_twice(i32(centred << i32(HEADROOM)), multiplier, i32(1) << i32(down - 1), down)


@njit(inline="always")
def added(a, b, a_scaling, b_scaling, y_scaling, sign, low, high):
    multiplier, term, down = y_scaling
    total = i32(operand(i32(a), a_scaling) + sign * operand(i32(b), b_scaling))
    return clamp(scaled_twice(total, multiplier, term, down), low, high)


def add_elements(a, b, y, count, a_scaling, b_scaling, y_scaling, sign, low, high):
    """a_scaling, b_scaling: (zero, multiplier, down); y_scaling: (multiplier, term, down)."""
    even = i32(count & ~1)
    for i in range(i32(0), even, i32(2)):
        y[i] = added(a[i], b[i], a_scaling, b_scaling, y_scaling, sign, low, high)
        y[i32(i + 1)] = added(a[i32(i + 1)], b[i32(i + 1)], a_scaling, b_scaling, y_scaling, sign, low, high)
    for i in range(even, count):
        y[i] = added(a[i], b[i], a_scaling, b_scaling, y_scaling, sign, low, high)


def prepare(kernel: Callable[..., None], ordinary: Call, y: Tensor) -> list[Step] | None:
    """From the ordinary kernel's call, for operands of y's shape whose shifts are not upwards; else None."""
    if ordinary.kernel is not add_int8:
        return None
    a, b, _, _, _, _, a_zero, b_zero, y_zero, *scalings, sign, low, high = ordinary.arguments
    (a_multiplier, a_shift), (b_multiplier, b_shift), (y_multiplier, y_shift) = zip(scalings[::2], scalings[1::2])
    if a.shape != y.shape or b.shape != y.shape or max(a_shift, b_shift) > 0:
        return None
    largest = np.array([2 * 256 << (HEADROOM - 1)])  # each operand is at most half of its value << HEADROOM
    scales = scaling(np.zeros(1, np.int64), largest, np.array([y_multiplier]), np.array([y_shift]), y_zero)
    if scales is None:
        return None
    y_scaling = int(scales.multiplier[0]), int(scales.term[0]), int(scales.down[0])
    arguments = (a, b, y, y.size, (a_zero, a_multiplier, -a_shift), (b_zero, b_multiplier, -b_shift), y_scaling, sign,
                 low, high)  # fmt: skip
    return [Step(kernel, arguments, {t: 0 for t in (a, b) if t.data is None})]


def preparation(kernel: Callable[..., None], kind: str) -> Callable[..., list[Step] | None]:
    """For the table of a family."""
    from edgecompress_runtime.kernels import KERNELS

    def prepared(inputs: Sequence[Any], outputs: Sequence[Tensor], options: Mapping[str, Any]) -> list[Step] | None:
        (call,) = KERNELS[kind](inputs, outputs, options)
        return prepare(kernel, call, outputs[0])

    return prepared
