"""A layer's work in shares, one a thread: each is a kernel call of its own, on a part of the output.

Shares write apart from one another, and have scratch memory of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.step import Part, Step
from edgecompress_runtime.plan import Tensor

LEAST = 400_000  # multiplications of a layer that threads share: they meet in about as long as 30,000 take
LEAST_ELEMENTS = 16_384  # of an operator that computes each by itself

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Divided(Step):
    """shares: what its threads do at the same time; `arguments` has all of theirs."""

    shares: tuple[Step, ...] = ()


def divided(steps: Sequence[Step]) -> Step:
    """The shares of a layer as one step."""
    if len(steps) == 1:
        return steps[0]
    arguments = tuple(argument for step in steps for argument in step.arguments)
    return Divided(steps[0].kernel, arguments, steps[0].overlap, shares=tuple(steps))


def part(tensor: Tensor, start: int) -> Any:
    """An argument: a tensor, or its address `start` elements on."""
    if start and tensor.data is not None:
        return np.ascontiguousarray(tensor.data).reshape(-1)[start:]
    return Part(tensor, start * tensor.dtype.itemsize) if start else tensor


def ranges(count: int, threads: int, unit: int = 1) -> list[Pair]:
    """0 to `count` in even parts, each but the last a multiple of `unit`.

    >>> ranges(10, 3)
    [(0, 4), (4, 7), (7, 10)]
    """
    units = -(-count // unit)
    ends = [min(-(-units * n // threads) * unit, count) for n in range(threads + 1)]
    return [(a, b) for a, b in pairwise(ends) if a < b]


@dataclass(frozen=True)
class Rows:
    """Output rows `first` to `last` need input rows `start` to `end`, with `pad` rows of padding above."""

    first: int
    last: int
    start: int
    end: int
    pad: int


def rows(
    threads: int, work: int, x_shape: Sequence[int], y_shape: Sequence[int], window: tuple[int, int, int, int]
) -> list[Rows]:
    """Shares of the rows of a convolution of `work` multiplications; one share where sharing would not pay.

    window: its rows, stride, dilation, rows of padding above.
    """
    (images, height, *_), out_h, (size, stride, dilation, pad) = x_shape, y_shape[1], window
    whole = [Rows(0, out_h, 0, height, pad)]
    if threads == 1 or images > 1 or work < LEAST or out_h < threads:
        return whole
    found = []
    for first, last in ranges(out_h, threads):
        top, bottom = first * stride - pad, (last - 1) * stride - pad + (size - 1) * dilation + 1
        found.append(Rows(first, last, max(top, 0), min(bottom, height), max(-top, 0)))
    return found if all(r.start < r.end for r in found) else whole
