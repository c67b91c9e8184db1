"""Shapes and strides for kernels over any axes: rows (up to five outer ones) of runs (the innermost)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numba import njit

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.kernels.arithmetic import Number, Values

i32 = np.int32
AXES = 6
Ints = tuple[int, ...]


@njit(inline="always")
def offset(row: Number, dims: Values, strides: Values) -> Number:
    """Where row number `row` starts: its position in the outer axes of `dims`, times `strides`."""
    i4, row = i32(row % dims[4]), i32(row // dims[4])
    i3, row = i32(row % dims[3]), i32(row // dims[3])
    i2, row = i32(row % dims[2]), i32(row // dims[2])
    i1, i0 = i32(row % dims[1]), i32(row // dims[1])
    return i32(i0 * strides[0] + i1 * strides[1] + i2 * strides[2] + i3 * strides[3] + i4 * strides[4])


@njit(inline="always")
def row_count(dims: Values) -> Number:
    """Number of rows: the product of the outer axes."""
    return i32(dims[0] * dims[1] * dims[2] * dims[3] * dims[4])


def contiguous(shape: Sequence[int]) -> Ints:
    """Strides in elements of a C-ordered array.

    >>> contiguous((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1))[::-1] if shape else ()


def broadcast(shape: Sequence[int], to: Sequence[int]) -> Ints:
    """Strides that read `shape` as if it had the shape `to`.

    >>> broadcast((3, 1), (2, 3, 4))
    (0, 1, 0)
    """
    own = contiguous(shape)
    missing = len(to) - len(shape)
    return (0,) * missing + tuple(0 if n == 1 else s for n, s in zip(shape, own))


def collapsed(dims: Sequence[int], *strides: Sequence[int], axes: int = AXES) -> tuple[Ints, ...]:
    """(dims, *strides) with axes of size 1 dropped, neighbours merged where every operand allows, and axes of
    size 1 put in front to make `axes` of them.

    >>> collapsed((2, 1, 3, 4), (12, 12, 4, 1), (4, 4, 0, 1), axes=3)
    ((2, 3, 4), (12, 4, 1), (4, 0, 1))
    """
    kept: list[tuple[int, list[int]]] = []
    for n, *steps in zip(dims, *strides):
        if n == 1:
            continue
        if kept and all(outer == n * inner for outer, inner in zip(kept[-1][1], steps)):
            kept[-1] = (kept[-1][0] * n, steps)
        else:
            kept.append((n, steps))
    if len(kept) > axes:
        raise UnsupportedOperatorError(
            f"shape {tuple(dims)} with strides {strides}: {len(kept)} axes that can't be merged; at most {axes} can"
        )
    kept = [(1, [0] * len(strides))] * (axes - len(kept)) + kept
    return tuple(n for n, _ in kept), *(tuple(steps[i] for _, steps in kept) for i in range(len(strides)))
