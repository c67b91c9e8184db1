"""Shapes and strides for kernels that loop over any number of axes: always six, the unused ones of size 1."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from edgecompress_runtime.errors import UnsupportedOperatorError

LOOPS = 6
Ints = tuple[int, ...]


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


def collapsed(dims: Sequence[int], *strides: Sequence[int], loops: int = LOOPS) -> list[Ints]:
    """[dims, *strides] with axes of size 1 dropped, neighbours merged where every operand allows, and axes of
    size 1 put in front to make `loops` of them.

    >>> collapsed((2, 1, 3, 4), (12, 12, 4, 1), (4, 4, 0, 1), loops=3)
    [(2, 3, 4), (12, 4, 1), (4, 0, 1)]
    """
    axes: list[tuple[int, list[int]]] = []
    for n, *steps in zip(dims, *strides):
        if n == 1:
            continue
        if axes and all(outer == n * inner for outer, inner in zip(axes[-1][1], steps)):
            axes[-1] = (axes[-1][0] * n, steps)
        else:
            axes.append((n, steps))
    if len(axes) > loops:
        raise UnsupportedOperatorError(f"dimensions {tuple(dims)} with strides {strides} need {len(axes)} loops; "
                                       f"there are {loops}")  # fmt: skip
    axes = [(1, [0] * len(strides))] * (loops - len(axes)) + axes
    return [tuple(n for n, _ in axes), *(tuple(steps[i] for _, steps in axes) for i in range(len(strides)))]
