"""Zero weights and patterns of zeros, counted in the weights as files store them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.patterns import Pattern, parse_pattern, to_taps
from edgecompress.graph.annotations import quantization, sparsity
from edgecompress.graph.fusion import constant
from edgecompress.record.report import Goal

ZEROS = "zero weights"


def counted_goals(goals: Sequence[Goal], model: ir.Model) -> list[Goal]:
    """The goals with the share of zeros that the annotated model stores, and one for each pattern of N of M weights."""
    pruned = list(_pruned(model))
    if not pruned:
        return list(goals)
    share = 100 * sum(int((array == 0).sum()) for _, array, _ in pruned) / sum(array.size for _, array, _ in pruned)
    counted = [goal.model_copy(update={"achieved": share}) if goal.what == ZEROS else goal for goal in goals]
    for pattern in dict.fromkeys(p for _, _, p in pruned if p.keep is not None):
        pairs = [_groups(node, array, p) for node, array, p in pruned if p == pattern]
        right, total = (sum(column) for column in zip(*pairs, strict=True))
        note = "" if right == total else f"{total - right:,} of {total:,} groups hold more than {pattern.keep}"
        kept = Goal(what=f"{pattern.name} groups", unit="%", requested=100, achieved=100 * right / total, note=note)
        counted.append(kept)
    return counted


def _pruned(model: ir.Model) -> Iterator[tuple[ir.Node, np.ndarray, Pattern]]:
    """Each pruned weight once: a node that multiplies with it, its stored values, and how it was pruned."""
    seen = set()
    for node in model.graph:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        pruned, array = sparsity(weight), constant(weight)
        if weight is None or pruned is None or array is None or weight in seen:
            continue
        seen.add(weight)
        q = quantization(weight)
        yield node, array if q is None else q.quantize(array), parse_pattern(pruned.pattern)


def _groups(node: ir.Node, stored: np.ndarray, pattern: Pattern) -> tuple[int, int]:
    """(groups that keep to the pattern, all groups): N of M neighbouring inputs of one output."""
    taps = to_taps(node, stored)
    surplus = (taps != 0) & ~pattern.n_of_m((taps != 0).astype(np.float32))
    starts = np.arange(0, taps.shape[2], pattern.columns)
    wrong = np.add.reduceat(surplus.astype(np.int64), starts, axis=2) > 0
    return int((~wrong).sum()), wrong.size
