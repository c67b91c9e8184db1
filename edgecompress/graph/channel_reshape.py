"""What a Reshape does to channels: dimensions that are split or joined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import ChannelAxes, shape
from edgecompress.graph.nodes import argument
from edgecompress.graph.provenance import label


@dataclass(frozen=True)
class Block:
    """Axes of the input and of the output with the same elements, as products of the same factors.

    before, after: (axis, the factors' places) each. factors: sizes, outermost first; None when there are no such:
    [6, 4] -> [8, 3].
    """

    before: tuple[tuple[int, tuple[int, ...]], ...]
    after: tuple[tuple[int, tuple[int, ...]], ...]
    factors: tuple[int, ...] | None


def blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[Block]:
    """[2, 12, 5] -> [2, 3, 4, 5] is three blocks: 2, (3, 4), 5. Dimensions of 1 are left out."""
    found, left, right = [], [], []
    for axis, size in enumerate(before):
        if size > 1:
            left.append((axis, size))
    for axis, size in enumerate(after):
        if size > 1:
            right.append((axis, size))
    while left or right:
        a, b = [left.pop(0)], [right.pop(0)]
        while (x := math.prod(n for _, n in a)) != (y := math.prod(n for _, n in b)):
            if x < y:
                a.append(left.pop(0))
            else:
                b.append(right.pop(0))
        found.append(_block(a, b))
    return found


def _block(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> Block:
    ends_a, ends_b = (list(np.cumprod([n for _, n in side]).tolist()) for side in (a, b))
    ends = [1, *sorted({*ends_a, *ends_b})]
    exact = all(larger % smaller == 0 for smaller, larger in pairwise(ends))
    factors = tuple(larger // smaller for smaller, larger in pairwise(ends)) if exact else None

    def parts(side: list[tuple[int, int]], last: list[int]) -> tuple[tuple[int, tuple[int, ...]], ...]:
        starts = [1, *last[:-1]]
        return tuple((axis, tuple(range(ends.index(s), ends.index(e)))) for (axis, _), s, e in zip(side, starts, last))

    return Block(parts(a, ends_a), parts(b, ends_b), factors)


def couple_same(node: ir.Node, axes: ChannelAxes) -> None:
    """Dimensions that the Reshape leaves as they are."""
    x, y = argument(node, 0), node.outputs[0]
    for block in blocks(shape(x), shape(y)):
        if block.factors is not None and len(block.factors) == 1:
            axes.couple(axes.ids(x, block.before[0][0]), axes.ids(y, block.after[0][0]))


def couple_split(node: ir.Node, axes: ChannelAxes) -> None:
    """Of the dimensions that are split or joined one may lose positions, the others stay: the outermost that isn't
    fixed already (attention: whole heads; a flattened image: channels, whose height and width are fixed), or the
    second one where a Transpose swaps two parts (a shuffle: the parts lose the same channels).

    Everything else must have had its rule before.
    """
    x, y = argument(node, 0), node.outputs[0]
    for block in blocks(shape(x), shape(y)):
        places = [(x, *part) for part in block.before] + [(y, *part) for part in block.after]
        reason = f"{label(node)} reshapes {list(shape(x))} to {list(shape(y))}"
        if block.factors is None:
            for value, axis, _ in places:
                axes.fix(axes.ids(value, axis), reason)
            continue
        if len(block.factors) == 1:
            continue
        fixed = axes.fixed() != 0
        free = [f for f in range(len(block.factors)) if _free(f, block.factors, places, axes, fixed)]
        chosen = free[0] if free else None
        if len(free) > 1 and _swapped(block, free, y):
            chosen = free[1]
        for value, axis, own in places:
            ids = axes.ids(value, axis)
            if chosen not in own:
                axes.fix(ids, reason)
                continue
            grouped = _by_factor(ids, own, block.factors, chosen)
            axes.couple(grouped, grouped[:, :1])
        lines = [_by_factor(axes.ids(v, a), own, block.factors, chosen)[:, 0] for v, a, own in places if chosen in own]
        for line in lines[1:]:
            axes.couple(lines[0], line)


def _by_factor(ids: np.ndarray, own: tuple[int, ...], factors: tuple[int, ...], chosen: int) -> np.ndarray:
    """[size of the chosen factor, the rest]"""
    grid = ids.reshape([factors[f] for f in own])
    return np.moveaxis(grid, own.index(chosen), 0).reshape(factors[chosen], -1)


def _free(
    factor: int,
    factors: tuple[int, ...],
    places: list[tuple[ir.Value, int, tuple[int, ...]]],
    axes: ChannelAxes,
    fixed: np.ndarray,
) -> bool:
    """Whether some of its positions aren't fixed along any axis that has the factor."""
    stays = np.zeros(factors[factor], bool)
    for value, axis, own in places:
        if factor in own:
            stays |= fixed[_by_factor(axes.ids(value, axis), own, factors, factor)].any(1)
    return not stays.all()


def _swapped(block: Block, free: list[int], y: ir.Value) -> bool:
    """Whether the first two free factors are dimensions of y that its only reader, a Transpose, puts the other way
    round, side by side."""
    where = {own[0]: axis for axis, own in block.after if len(own) == 1}
    uses = tuple(y.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Transpose" or not {free[0], free[1]} <= where.keys():
        return False
    order = list(uses[0].node.attributes.get_ints("perm") or ())
    return bool(order) and order.index(where[free[0]]) == order.index(where[free[1]]) + 1
