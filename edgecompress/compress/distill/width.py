"""The same network with narrower layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.compress.prune.channel_scores import channel_scores
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.errors import UnsupportedModelError
from edgecompress.train import TrainData

CRITERION = "fisher"  # what the outputs lose; without labels, of what the model itself predicts


def narrowed(model: ir.Model, multiplier: float, data: TrainData, *, align: int = 1, seed: int = 0) -> ir.Model:
    """A copy whose groups of channels have `multiplier` times as many, rounded to a multiple of `align`: those that
    matter most to the outputs.

    Raises UnsupportedModelError when no group can lose a channel.
    """
    groups = prunable(channel_groups(model))
    if not groups:
        raise UnsupportedModelError(
            "no layer of the model can be made narrower; name a student model of your own: [distill] student"
        )
    scores = channel_scores(model, groups, CRITERION, data=data, seed=seed)
    kept = {g: min(g.size, max(1, round(g.size * multiplier / align)) * align) for g in groups}
    gone = {g: np.argsort(scores[g], kind="stable")[: g.size - count] for g, count in kept.items()}
    return remove_channels(model, gone)
