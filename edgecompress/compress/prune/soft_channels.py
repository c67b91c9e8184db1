"""Pruning of channels by gates: trained until as many have closed as the recipe asks for, and then removed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.channel_gates import SoftChannels
from edgecompress.compress.prune.channel_scores import channel_scores
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.compress.prune.prune_channels import (
    COMPARABLE,
    Pruned,
    Retrained,
    Width,
    fixed_groups,
    wanted,
    without_kept,
)
from edgecompress.compress.prune.widths import COST, LEAST

if TYPE_CHECKING:
    from edgecompress.recipe import Prune
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss


def prune_softly(
    model: ir.Model,
    settings: Prune,
    *,
    data: TrainData,
    loss: Loss | None,
    seed: int,
    train: Callable[[ir.Model, SoftChannels], Retrained],
) -> Pruned:
    """A smaller model that is trained already. `train` trains with the gates as a hook.

    settings: with criterion and allocation, which say where the gates begin. model: canonical, but that
    BatchNormalization may be in place; it then stays.
    """
    what, left = wanted(settings)
    groups = without_kept(prunable(channel_groups(model)), settings.keep)
    scores = channel_scores(model, groups, settings.criterion, data=data, loss=loss, seed=seed)
    scores = COMPARABLE[settings.allocation](model, scores, what, settings.criterion, data)
    least = {g.name: math.ceil(LEAST * g.size) for g in groups}
    gates = SoftChannels(model, scores, what, left, align=settings.align, least=least, seed=seed)
    notes = fixed_groups(model)
    notes += [f"{g.name}: all {g.size} channels stay: no weights read them" for g in groups if g not in gates.groups]
    trained = train(model, gates)
    removed = gates.removed()
    smaller = remove_channels(trained.model, removed)
    widths = tuple(Width(g.name, g.size, g.size - len(removed.get(g, ()))) for g in groups)
    if (cost := COST.get(what)) is not None:
        achieved = cost(statistics(smaller)) / cost(statistics(model))
    else:
        achieved = sum(w.after for w in widths) / sum(w.before for w in widths) if widths else 1.0
    if achieved > left + 1e-9:
        notes.append(f"at most {100 * (1 - achieved):.1f} % of the {what} can be removed")
    return Pruned(smaller, what, left, achieved, widths, 0, tuple(notes), (trained.history,))
