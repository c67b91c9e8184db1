"""Pruning of channels: what the recipe asks for, out of the model."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.prune.channel_scores import ON_DATA, Scores, channel_scores
from edgecompress.compress.prune.widths import COST, by_capacity, by_saving, lamp, narrow, relative, savings, uniform
from edgecompress.errors import InputError
from edgecompress.graph.channel_groups import ChannelGroup, channel_groups, prunable
from edgecompress.graph.statistics import statistics

if TYPE_CHECKING:
    from edgecompress.recipe import Prune
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss

STEPS = 4  # scores are measured again after each part of what goes


@dataclass(frozen=True)
class Width:
    """One group: channels before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Pruned:
    """model: smaller, canonical. what: "channels", "macs" or "parameters"; requested, achieved: shares of it that
    stay. notes: which groups can't be pruned and why, and what else the user may want to know.
    """

    model: ir.Model = field(repr=False)
    what: str
    requested: float
    achieved: float
    groups: tuple[Width, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{100 * self.achieved:.1f} % of the {self.what} left ({100 * self.requested:.1f} % asked for)"


def prune_channels(
    model: ir.Model, settings: Prune, *, data: TrainData | None = None, loss: Loss | None = None, seed: int = 0
) -> Pruned:
    """A smaller model, not yet trained again.

    Criteria that look at data measure again between STEPS parts, for a channel matters more when others have gone.
    Raises InputError when the criterion needs data, `keep` names no layer, or nothing can be pruned.
    """
    what, target = wanted(settings)
    before, notes = statistics(model), []
    if settings.blocks:
        model, gone = _without_blocks(model, settings.blocks, data)
        notes += [f"the block that ends in {name} is left out" for name in gone]
    widths = {g.name: g.size for g in _without_kept(prunable(channel_groups(model)), settings.keep)}
    notes += [f"{g.name}: all {g.size} channels stay: {g.fixed}" for g in channel_groups(model) if g.fixed]
    total, left = sum(widths.values()), dict(widths)
    steps = STEPS if settings.criterion in ON_DATA else 1
    cost = COST.get(what)
    for step in range(1, steps + 1):
        groups = [g for g in prunable(channel_groups(model)) if g.name in widths]
        scores = channel_scores(model, groups, settings.criterion, data=data, loss=loss, seed=seed + step)
        scores = COMPARABLE[settings.allocation](model, scores, what, settings.criterion, data)
        goal = 1 - (1 - target) * step / steps
        now = sum(left.values()) / max(total, 1) if cost is None else cost(statistics(model)) / max(cost(before), 1)
        model, removed = narrow(model, scores, what, min(goal / now, 1.0), settings.align if step == steps else 1)
        for g, channels in removed.items():
            left[g.name] -= len(channels)
    achieved = sum(left.values()) / max(total, 1) if cost is None else cost(statistics(model)) / max(cost(before), 1)
    if achieved > target + 1e-9:
        notes.append(f"no more than {100 * (1 - achieved):.1f} % of the {what} can go")
    return Pruned(
        model, what, target, achieved, tuple(Width(n, size, left[n]) for n, size in widths.items()), tuple(notes)
    )


def _without_kept(groups: Sequence[ChannelGroup], keep: Sequence[str]) -> list[ChannelGroup]:
    """Those that no layer in `keep` makes channels of. Raises InputError for a name of no such layer."""
    makers = {x.node for g in groups for x in g.made_by}
    if unknown := [name for name in keep if name not in makers]:
        raise InputError(f"prune.keep: no layer that channels can be removed from is called {unknown[0]!r}; there are "
                         f"{', '.join(sorted(makers))}")  # fmt: skip
    return [g for g in groups if not any(x.node in keep for x in g.made_by)]


def wanted(settings: Prune) -> tuple[str, float]:
    """("channels", "macs" or "parameters", the share that stays)."""
    if settings.macs is not None:
        return "macs", settings.macs
    if settings.parameters is not None:
        return "parameters", settings.parameters
    return "channels", 1 - (settings.channels or 0.0)


def _without_blocks(model: ir.Model, count: int, data: TrainData | None) -> tuple[ir.Model, list[str]]:
    if data is None:
        raise InputError("prune.blocks needs training data, to find those that matter least")
    from edgecompress.compress.prune.channel_sensitivity import remove_blocks

    return remove_blocks(model, count, data)


def _uniform(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    return uniform(scores)


def _global(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    """Damage to the loss compares between groups as it is; the size of weights does not."""
    compare = by_saving if criterion in ("fisher", "taylor") else relative
    return compare(scores, savings(model, scores, what))


def _lamp(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    return lamp(scores)


def _capacity(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    return by_capacity(scores, savings(model, scores, "parameters"), savings(model, scores, "macs"))


def _sensitivity(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    from edgecompress.compress.prune.channel_sensitivity import by_sensitivity

    return by_sensitivity(model, scores, data)


COMPARABLE: dict[str, Callable[[ir.Model, Scores, str, str, TrainData | None], Scores]] = {
    "capacity": _capacity, "global": _global, "lamp": _lamp, "sensitivity": _sensitivity, "uniform": _uniform,
}  # fmt: skip
