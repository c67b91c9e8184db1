"""Pruning of channels: removes as many as the recipe asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup, channel_groups, prunable
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.channel_scores import channel_scores
from edgecompress.compress.prune.criterion import Scores, criterion
from edgecompress.compress.prune.defaults import for_channels
from edgecompress.compress.prune.recipe_faults import require_possible
from edgecompress.compress.prune.schedules import rounds
from edgecompress.compress.prune.widths import (
    COST,
    LEAST,
    by_capacity,
    by_saving,
    lamp,
    narrow,
    relative,
    savings,
    uniform,
)
from edgecompress.errors import InputError
from edgecompress.record.report import History

if TYPE_CHECKING:
    from edgecompress.recipe import Prune
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss

PARTS = 4  # scores are measured again after each part of what goes


@dataclass(frozen=True)
class Width:
    """One group: channels before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Retrained:
    """A model that was trained between two rounds of pruning, and the record of that training."""

    model: ir.Model
    history: History


@dataclass(frozen=True)
class Pruned:
    """model: smaller, canonical. what: "channels", "macs" or "parameters"; requested, achieved: shares of it that
    stay, 1 where nothing but blocks was to go. blocks: how many are left out. notes: which groups can't be pruned and
    why, and what else the user may want to know. histories: of the trainings between rounds.
    """

    model: ir.Model = field(repr=False)
    what: str
    requested: float
    achieved: float
    groups: tuple[Width, ...]
    blocks: int
    notes: tuple[str, ...]
    histories: tuple[History, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.blocks} blocks removed"] if self.blocks else []
        if self.requested < 1:
            left, asked = 100 * self.achieved, 100 * self.requested
            parts.append(f"{left:.1f} % of the {self.what} remain ({asked:.1f} % requested)")
        return ", ".join(parts)


def prune_channels(
    model: ir.Model,
    settings: Prune,
    *,
    data: TrainData | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    retrain: Callable[[ir.Model, int], Retrained] | None = None,
) -> Pruned:
    """A smaller model, not yet trained again after what went last.

    model: canonical, but that BatchNormalization may be in place. It then stays, and with data its statistics are
    measured again after each removal: what is left behind it has the mean and the variance that it was trained for.
    Criteria that look at data measure again between PARTS of it, for a channel matters more when others have gone.
    retrain: for schedule = "iterative": the model after round 1, 2, .. (but for the last) trained again.
    Raises InputError for settings that contradict each other or need data, and when `keep` names no layer.
    """
    settings = for_channels(settings, trains=data is not None)
    require_possible(settings, None if data is None else settings.rewind)  # training's length is not known here
    what, target = wanted(settings)
    before, notes = statistics(model), list[str]()
    histories: list[History] = []
    if settings.blocks:
        model, gone = _without_blocks(model, settings.blocks, data)
        model = _refreshed(model, data)
        notes += [f"the block that ends in {name} was removed" for name in gone]
    widths = {g.name: g.size for g in without_kept(prunable(channel_groups(model)), settings.keep)}
    notes += fixed_groups(model)
    total, left = sum(widths.values()), dict(widths)
    least = {name: math.ceil(LEAST * size) for name, size in widths.items()}
    cost = COST.get(what)

    def share() -> float:
        now, all_ = (sum(left.values()), total) if cost is None else (cost(statistics(model)), cost(before))
        return now / all_ if all_ else 1.0

    parts = PARTS if criterion(settings.criterion).looks_at_data else 1
    count = settings.rounds if settings.schedule == "iterative" and retrain is not None else 1
    steps = list(_shares(target, count, parts))
    for step, goal in enumerate(steps if target < 1 and widths else [], 1):
        groups = [g for g in prunable(channel_groups(model)) if g.name in widths]
        scores = channel_scores(model, groups, settings.criterion, data=data, loss=loss, seed=seed + step)
        scores = COMPARABLE[settings.allocation](model, scores, what, settings.criterion, data)
        align = settings.align if step == len(steps) else 1
        model, removed = narrow(model, scores, what, min(goal / share(), 1.0), align, least=least)
        model = _refreshed(model, data)
        for g, channels in removed.items():
            left[g.name] -= len(channels)
        if step % parts == 0 and step < len(steps) and retrain is not None:
            trained = retrain(model, step // parts)
            model, histories = trained.model, [*histories, trained.history]
    achieved = share() if target < 1 else 1.0
    if achieved > target + 1e-9:
        notes.append(f"at most {100 * (1 - achieved):.1f} % of the {what} can be removed")
    groups_left = tuple(Width(n, size, left[n]) for n, size in widths.items())
    return Pruned(model, what, target, achieved, groups_left, settings.blocks, tuple(notes), tuple(histories))


def _shares(target: float, count: int, parts: int) -> Iterator[float]:
    """What is to be left after each part of each round."""
    for number in range(1, count + 1):
        first, last = (1 - rounds(n, count, 1 - target) for n in (number - 1, number))
        yield from (first - (first - last) * part / parts for part in range(1, parts + 1))


def fixed_groups(model: ir.Model) -> list[str]:
    """A line for each group that can't be pruned."""
    return [f"{g.name}: all {g.size} channels stay: {g.fixed}" for g in channel_groups(model) if g.fixed]


def without_kept(groups: Sequence[ChannelGroup], keep: Sequence[str]) -> list[ChannelGroup]:
    """Those that no layer in `keep` makes channels of. Raises InputError for a name of no such layer."""
    makers = {x.node for g in groups for x in g.made_by}
    if unknown := [name for name in keep if name not in makers]:
        raise InputError(
            f"prune.keep: {unknown[0]!r} is no layer that channels can be removed from; those are "
            f"{', '.join(sorted(makers))}"
        )
    return [g for g in groups if not any(x.node in keep for x in g.made_by)]


def wanted(settings: Prune) -> tuple[str, float]:
    """("channels", "macs" or "parameters", the share that stays: 1 when only blocks are to go)."""
    if settings.macs is not None:
        return "macs", settings.macs
    if settings.parameters is not None:
        return "parameters", settings.parameters
    return "channels", 1 - (settings.channels or 0.0)


def _without_blocks(model: ir.Model, count: int, data: TrainData | None) -> tuple[ir.Model, list[str]]:
    if data is None:
        raise InputError("prune.blocks needs training data, to find the blocks that matter least")
    from edgecompress.compress.prune.channel_sensitivity import remove_blocks

    return remove_blocks(model, count, data)


def _refreshed(model: ir.Model, data: TrainData | None) -> ir.Model:
    """With statistics of BatchNormalization that are those of what is left."""
    if data is None or all(n.op_type != "BatchNormalization" for n in model.graph):
        return model
    from edgecompress.train.normalised import refresh_statistics

    return refresh_statistics(model, data)


def _uniform(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    return uniform(scores)


def _global(model: ir.Model, scores: Scores, what: str, name: str, data: TrainData | None) -> Scores:
    """Damage to the loss compares between groups for what it saves, scales that slimming made small do as they are, and
    the size of weights does not."""
    if criterion(name).slims:
        return scores
    compare = by_saving if criterion(name).damage else relative
    return compare(scores, savings(model, scores, what))


def _lamp(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    return lamp(scores)


def _capacity(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    return by_capacity(scores, savings(model, scores, "parameters"), savings(model, scores, "macs"))


def _sensitivity(model: ir.Model, scores: Scores, what: str, criterion: str, data: TrainData | None) -> Scores:
    from edgecompress.compress.prune.channel_sensitivity import by_sensitivity

    return by_sensitivity(model, scores, savings(model, scores, what), data)


COMPARABLE: dict[str, Callable[[ir.Model, Scores, str, str, TrainData | None], Scores]] = {
    "capacity": _capacity, "global": _global, "lamp": _lamp, "sensitivity": _sensitivity, "uniform": _uniform,
}  # fmt: skip
