"""The same network with narrower layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.errors import UnsupportedModelError


def narrowed(model: ir.Model, multiplier: float, align: int = 1) -> ir.Model:
    """A copy whose groups of channels have `multiplier` times as many, rounded to a multiple of `align`.

    Those kept are the first ones: they are there for their shape. Raises UnsupportedModelError when no group can
    lose a channel.
    """
    groups = prunable(channel_groups(model))
    if not groups:
        raise UnsupportedModelError(
            "no layer of the model can be made narrower; name a student model of your own: [distill] student"
        )
    kept = {g: min(g.size, max(1, round(g.size * multiplier / align)) * align) for g in groups}
    return remove_channels(model, {g: np.arange(count, g.size) for g, count in kept.items()})
