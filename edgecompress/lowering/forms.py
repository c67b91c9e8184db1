"""Forms: in which order a TFLite tensor holds the axes of an ONNX value.

A form has one entry per TFLite axis: the ONNX axis it holds, or None for an inserted axis of size 1.
An NCHW value stored as NHWC has form (0, 2, 3, 1); a 1-D signal [N, C, L] stored as an image of
height 1 has (0, None, 2, 1). All functions here are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Form = tuple[int | None, ...]
Shape = tuple[int, ...]


def identity(rank: int) -> Form:
    """The order of axes that ONNX has."""
    return tuple(range(rank))


def channels_last(rank: int) -> Form:
    """What TFLite's image operators take: 4-D NHWC, with height 1 for a 1-D signal.

    >>> channels_last(4), channels_last(3)
    ((0, 2, 3, 1), (0, None, 2, 1))
    """
    return (0, 2, 3, 1) if rank == 4 else (0, None, 2, 1)


def axes(form: Form) -> list[int]:
    """The form's ONNX axes in TFLite order, inserted ones left out."""
    return [a for a in form if a is not None]


def shape_in(form: Form, shape: Sequence[int]) -> Shape:
    """ONNX shape -> TFLite shape."""
    return tuple(1 if a is None else int(shape[a]) for a in form)


def operand_form(form: Form, rank: int, operand_rank: int) -> Form:
    """The form an operand of lower rank takes so that broadcasting lines up with `form`.

    >>> operand_form((0, 2, 3, 1), 4, 3)      # [C, H, W] against [N, C, H, W] as NHWC
    (None, 1, 2, 0)
    """
    missing = rank - operand_rank
    return tuple(None if a is None or a < missing else a - missing for a in form)


def same_order(a: Form, b: Form, shape: Sequence[int]) -> bool:
    """Whether both forms put the elements of a value in the same order in memory."""
    return [x for x in axes(a) if shape[x] != 1] == [x for x in axes(b) if shape[x] != 1]


def transposed(form: Form, permutation: Sequence[int]) -> Form:
    """Form of ONNX Transpose's output when nothing moves in memory: output axis i is input axis permutation[i].

    >>> transposed((0, 2, 3, 1), (0, 2, 3, 1))   # NHWC in memory, seen as NHWC
    (0, 1, 2, 3)
    """
    return tuple(None if a is None else list(permutation).index(a) for a in form)


def reduced(form: Form, removed: Sequence[int]) -> Form:
    """Form after ONNX axes `removed` are dropped from the value."""
    return tuple(None if a is None else a - sum(r < a for r in removed) for a in form if a is None or a not in removed)


def reshaped(before: Sequence[int], after: Sequence[int], form: Form) -> Form | None:
    """Form of a Reshape's output when nothing moves in memory, or None when something would have to.

    A reshape splits and merges runs of neighbouring axes. When the form keeps each run together and in
    order, the runs may stand anywhere: [N, C, H, W] as NHWC reshaped to [N, C, H*W] is [N, H*W, C].

    >>> reshaped((1, 8, 4, 4), (1, 8, 16), (0, 2, 3, 1))
    (0, 2, 1)
    >>> reshaped((1, 8, 4, 4), (1, 128), (0, 2, 3, 1)) is None
    True
    """
    runs = _runs([(i, n) for i, n in enumerate(before) if n != 1], [(i, n) for i, n in enumerate(after) if n != 1])
    order = [a for a in axes(form) if before[a] != 1]
    result: list[int] = []
    position = 0
    by_first = {source[0]: (source, target) for source, target in runs}
    while position < len(order):
        if order[position] not in by_first:
            return None
        source, target = by_first[order[position]]
        if order[position : position + len(source)] != source:
            return None
        result += target
        position += len(source)
    for axis in (i for i, n in enumerate(after) if n == 1):
        # axes of size 1 may stand anywhere: next to their ONNX neighbour, or in front
        place = result.index(axis - 1) + 1 if axis - 1 in result else 0
        result.insert(place, axis)
    return tuple(result)


def _runs(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes with equal products, (input axes, output axes) each."""
    runs, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        start_i, start_j = i, j
        i, j = i + 1, j + 1
        while (a := prod(n for _, n in before[start_i:i])) != (b := prod(n for _, n in after[start_j:j])):
            if a < b:
                i += 1
            else:
                j += 1
        runs.append(([x for x, _ in before[start_i:i]], [x for x, _ in after[start_j:j]]))
    return runs
