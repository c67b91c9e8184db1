"""ADD and SUB of equal shapes, in any family: `binary.add_int8` as one weighted sum (linear_sum.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.linear_sum import linear_sum
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.words import rounded_high_product, shifted_right
from edgecompress_runtime.kernels import KERNELS
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor


@inline
def added(x: Word, y: Word, slopes: Words, scale: Words, bounds: Words) -> Word:
    """One element. scale: multiplier, term, down."""
    multiplier, term, down = scale
    total = i32(i32(i32(x) * slopes[0]) + i32(i32(y) * slopes[1]))
    high = i32(rounded_high_product(total, multiplier, i32(0)) + term)
    return clamp(shifted_right(high, down), bounds[0], bounds[1])


def add_elements(tensors: Tuple, count: Word, slopes: Words, record: Pointer, down: Word, bounds: Words) -> None:
    """tensors: a, b, y. slopes: of a and b, even. record: multiplier and term, in memory: with literals LLVM finds no
    SMMLAR."""
    a, b, y = tensors
    even, scale = i32(count & ~1), (record[0], record[1], down)
    for i in range(i32(0), even, i32(2)):
        y[i] = added(a[i], b[i], slopes, scale, bounds)
        y[i32(i + 1)] = added(a[i32(i + 1)], b[i32(i + 1)], slopes, scale, bounds)
    for i in range(even, count):
        y[i] = added(a[i], b[i], slopes, scale, bounds)


def preparation(kernel: Callable[..., None], kind: str) -> Callable[..., list[Step] | None]:
    """For the table of a family; kernel: as `add_elements`."""

    def prepared(inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
        (call,), (y,) = KERNELS[kind](inputs, outputs, options), outputs
        found = linear_sum(call, y, rounded=True)
        if found is None:
            return None
        # doubled sums instead of the doubled multiplier, which has no room in 32 bits with a sign
        slopes = 2 * found.slopes[0], 2 * found.slopes[1]
        record = np.array([found.multiplier // 2, found.term >> 32], np.int32)
        operands = found.a, found.b
        in_place = {t: 0 for t in operands if t.data is None}
        arguments = (*operands, y), y.size, slopes, record, found.down, found.bounds
        return [Step(kernel, arguments, in_place)]

    return prepared
