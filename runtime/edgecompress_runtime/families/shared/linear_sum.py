"""ADD and SUB of int8 as one weighted sum.

`binary.add_int8` rounds three times: each operand, and their sum. But there are no more than 65,536 pairs of int8, and
for the scales of a network's layers two whole numbers A and B and a term can be found with which (a * A + b * B) *
multiplier + term, rounded down once, gives the same for all of them. So they are searched, and every pair is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from edgecompress_runtime.kernels.arithmetic import requantized
from edgecompress_runtime.kernels.binary import HEADROOM, add_int8
from edgecompress_runtime.kernels.registry import Call
from edgecompress_runtime.plan import Tensor

BYTES = np.arange(-128, 128, dtype=np.int64)
# what is tried: distances from the slopes that are nearest to the real ones
NEAR = sorted(product(range(-3, 4), repeat=2), key=lambda pair: sum(n * n for n in pair))
MOST_DOWN = 22  # with more, a byte << 32 + down and what is added to it would not fit in 64 bits


@dataclass(frozen=True)
class LinearSum:
    """clamp(((a * slopes[0] + b * slopes[1]) * multiplier + term) >> 32 + down, *bounds) is y."""

    a: Tensor
    b: Tensor
    slopes: tuple[int, int]
    multiplier: int
    term: int
    down: int
    bounds: tuple[int, int]


def linear_sum(call: Call, y: Tensor, *, rounded: bool = False) -> LinearSum | None:
    """From the ordinary kernel's call. The weighted sums' magnitude is below 2**30, multiplier is even and below 2**32.
    rounded: term is 2**31 more than a multiple of 2**32, so that the upper half of a rounded product will do. None
    where nothing was found."""
    if call.kernel is not add_int8:
        return None
    arguments: tuple[Any, ...] = call.arguments
    a, b, _, _, zeros, (*operand_scalings, (y_m, y_shift)), (sign, low, high) = arguments
    operands = [
        requantized((BYTES - zero) << HEADROOM, *scaling) * factor
        for zero, scaling, factor in zip(zeros, operand_scalings, (1, sign))
    ]
    exact = requantized(operands[0][:, None] + operands[1], y_m, y_shift) + zeros[2]
    pairs = _Pairs(np.clip(exact, low, high).reshape(-1), (low, high))
    rises = [(int(n[-1]) - int(n[0])) / 255 for n in operands]
    # as many bits as fit: 128 * (|A| + |B|) < 2**30
    finer = min(math.floor(math.log2((2**30 / 128 - 8) / max(sum(map(abs, rises)), 1.0))), MOST_DOWN + y_shift)
    multiplier, down = 2 * y_m, finer - y_shift
    if down < 0:
        return None
    for near in NEAR:
        first, second = (round(rise * 2.0**finer) + step for rise, step in zip(rises, near))
        slopes = first, second
        term = pairs.term(slopes, multiplier, down, rounded)
        if term is not None:
            return LinearSum(a, b, slopes, multiplier, term, down, (low, high))
    return None


class _Pairs:
    """All pairs of int8, by what their outputs are."""

    def __init__(self, exact: np.ndarray, bounds: tuple[int, int]) -> None:
        self.order, self.bounds = np.argsort(exact, kind="stable"), bounds
        self.outputs, self.starts = np.unique(exact[self.order], return_index=True)

    def term(self, slopes: Sequence[int], multiplier: int, down: int, rounded: bool) -> int | None:
        """One in the middle of those with which every sum gets where it belongs."""
        sums = (BYTES[:, None] * slopes[0] + BYTES * slopes[1]).reshape(-1)[self.order]
        least, most = -(2**62), 2**62
        for y, smallest, largest in zip(
            *(
                n.tolist()
                for n in (self.outputs, np.minimum.reduceat(sums, self.starts), np.maximum.reduceat(sums, self.starts))
            )
        ):
            if y > self.bounds[0]:
                least = max(least, (y << down + 32) - smallest * multiplier)
            if y < self.bounds[1]:
                most = min(most, (y + 1 << down + 32) - largest * multiplier - 1)
        found = (least + most) // 2
        if rounded:
            found = (found >> 32 << 32) + 2**31
        return found if least <= found <= most else None
