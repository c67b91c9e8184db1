"""What a model's outputs lose when one group of channels, or one block, is pruned alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.analysis.channel_groups import ChannelGroup
from edgecompress.compress.distill.depth import removable_blocks
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.compress.prune.criterion import Scores
from edgecompress.compress.prune.weight_sensitivity import marginal
from edgecompress.errors import InputError
from edgecompress.ingest.normalise import normalise
from edgecompress.support.present import present
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel

RATIOS = (0.125, 0.25, 0.5, 0.75)
SAMPLES = 256


def noise(model: ir.Model, data: TrainData) -> Callable[[ir.Model], float]:
    """A function from a smaller model to the noise-to-signal ratio of its outputs (before a Softmax)."""
    batch = data.batch(np.arange(min(SAMPLES, len(data))))

    def outputs(m: ir.Model) -> list[torch.Tensor]:
        with torch.no_grad():
            return [y for y in TorchModel(m, logits=True).eval()(*batch.inputs) if y.is_floating_point()]

    wanted = outputs(model)
    signal = sum(float(y.square().sum()) for y in wanted) or 1.0
    return lambda m: sum(float((a - b).square().sum()) for a, b in zip(outputs(m), wanted)) / signal


def by_sensitivity(
    model: ir.Model, scores: Scores, savings: Mapping[ChannelGroup, float], data: TrainData | None
) -> Scores:
    """For each channel what its removal adds to the noise in the outputs once all channels of its group that score less
    are gone, for each unit that it saves (`weight_sensitivity.marginal`); noise measured at RATIOS."""
    if data is None:
        raise InputError('prune.allocation = "sensitivity" needs training data; "uniform" and "global" do not')
    measure, result = noise(model, data), {}
    for g, s in scores.items():
        order = np.argsort(s, kind="stable")
        found = [measure(remove_channels(model, {g: order[: round(r * g.size)]})) for r in RATIOS]
        result[g] = np.empty(g.size)
        result[g][order] = marginal((0.0, *RATIOS), (0.0, *found), g.size * max(savings[g], 1e-30))(
            (np.arange(g.size) + 0.5) / g.size
        )
    return result


def remove_blocks(model: ir.Model, count: int, data: TrainData) -> tuple[ir.Model, list[str]]:
    """The model without `count` blocks whose input can stand for their output, one after the other the one that
    changes the outputs least; and the names of the layers that they ended in.

    Raises InputError when there are fewer.
    """
    measure, names = noise(model, data), list[str]()
    for _ in range(count):
        candidates = [_without(model, i) for i in range(len(removable_blocks(model.graph)))]
        if not candidates:
            raise InputError(f"prune.blocks = {count}: the model has only {len(names)} blocks that can be removed")
        model, name = min(candidates, key=lambda c: measure(c[0]))
        names.append(name)
    return model, names


def _without(model: ir.Model, place: int) -> tuple[ir.Model, str]:
    model = model.clone()
    first, last = removable_blocks(model.graph)[place]
    name = str(present(last.producer()).name or last.name)
    last.replace_all_uses_with(first, replace_graph_outputs=False)
    return normalise(model, {}, fold_batchnorm=False), name
