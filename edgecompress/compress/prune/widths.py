"""How many channels each group keeps, from one number for the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup
from edgecompress.analysis.statistics import ModelStatistics, statistics
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.compress.prune.criterion import Scores

NONE: Mapping[str, int] = MappingProxyType({})
LEAST = 1 / 8  # of a group's channels stay, whatever their scores


def uniform(scores: Scores) -> Scores:
    """The channel's place within its group: all groups lose the same share."""
    return {g: np.argsort(np.argsort(s, kind="stable"), kind="stable") / g.size for g, s in scores.items()}


def by_saving(scores: Scores, savings: dict[ChannelGroup, float]) -> Scores:
    """Damage for each unit saved: what a knapsack is filled by. Scores must mean the same in all groups."""
    return {g: s / max(savings[g], 1e-30) for g, s in scores.items()}


def relative(scores: Scores, savings: dict[ChannelGroup, float]) -> Scores:
    """Scores over the group's mean (G. Fang et al., "DepGraph", 2023, section 3.4), for each unit saved."""
    return by_saving({g: s / max(s.mean(), 1e-30) for g, s in scores.items()}, savings)


def by_capacity(scores: Scores, parameters: dict[ChannelGroup, float], macs: dict[ChannelGroup, float]) -> Scores:
    """The place within the group, times the root of how many parameters a multiply-accumulate there holds.

    What is saved is taken from the layers that learn the least for it, which in a network for images are the early
    ones: after long training that counts more than the damage that a channel's removal does at first.
    """
    return {g: s * (parameters[g] / max(macs[g], 1e-30)) ** 0.5 for g, s in uniform(scores).items()}


def lamp(scores: Scores) -> Scores:
    """Each score over the sum of those at least as large in the group (J. Lee et al., "Layer-adaptive sparsity")."""
    result = {}
    for g, s in scores.items():
        order = np.argsort(-s, kind="stable")
        result[g] = np.empty(g.size)
        result[g][order] = s[order] / np.maximum(np.cumsum(s[order]), 1e-300)
    return result


def _parameters(costs: ModelStatistics) -> int:
    """Without those of BatchNormalization, which is folded at the end."""
    return costs.parameters - sum(x.parameters for x in costs.layers if x.op_type == "BatchNormalization")


COST: dict[str, Callable[[ModelStatistics], int]] = {"macs": lambda costs: costs.macs, "parameters": _parameters}


def savings(model: ir.Model, scores: Scores, what: str) -> dict[ChannelGroup, float]:
    """What one channel of each group costs now: "macs", "parameters", or 1 for "channels"."""
    if what not in COST:
        return dict.fromkeys(scores, 1.0)
    cost = COST[what]
    before = cost(statistics(model))
    return {g: float(before - cost(statistics(remove_channels(model, {g: [0]})))) for g in scores}


def narrow(
    model: ir.Model, scores: Scores, what: str, target: float, align: int = 1, *, least: Mapping[str, int] = NONE
) -> tuple[ir.Model, dict[ChannelGroup, np.ndarray]]:
    """The model with the channels of lowest score removed: as many as it takes to bring "macs", "parameters" or
    "channels" to the share `target` or below, or as many as can go.

    scores: comparable between groups. align: each group keeps a multiple of it, or all. least: how many channels stay
    in the group of a name, whatever their scores (by default 1).
    Returns the model and the channels removed from each group.
    """
    order, number = _order(scores)

    def cut(count: int) -> dict[ChannelGroup, np.ndarray]:
        counts = np.bincount(number[order[:count]], minlength=len(scores))
        stay = {g: max(g.size - int(n), least.get(g.name, 1)) for g, n in zip(scores, counts)}
        return {g: _lowest(scores[g], n, align) for g, n in stay.items()}

    def share(count: int) -> float:
        removed = cut(count)
        if what not in COST:
            return 1 - sum(len(r) for r in removed.values()) / sum(g.size for g in scores)
        return COST[what](statistics(remove_channels(model, removed))) / max(COST[what](statistics(model)), 1)

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if share(middle) <= target:
            high = middle
        else:
            low = middle + 1
    removed = {g: channels for g, channels in cut(low).items() if len(channels)}
    return remove_channels(model, removed), removed


def _order(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """All channels from the lowest score up, and the place of each one's group."""
    flat = np.concatenate([np.asarray(s, np.float64) for s in scores.values()] or [np.empty(0)])
    number = np.repeat(np.arange(len(scores)), [g.size for g in scores])
    return np.argsort(flat, kind="stable"), number


def _lowest(scores: np.ndarray, stay: int, align: int) -> np.ndarray:
    """The places of the lowest scores, without the highest `stay`, rounded up to a multiple of `align`."""
    size = len(scores)
    stay = min(-(-stay // align) * align, size)
    return np.sort(np.argsort(scores, kind="stable")[: size - stay])
