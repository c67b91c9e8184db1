"""How much each channel of a group matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup
from edgecompress.compress.prune.channel_samples import batches, by_channel, sampled_loss
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, Statistics, criterion, load_criterion
from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.support.present import present

if TYPE_CHECKING:
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss


def channel_scores(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    name: str,
    *,
    data: TrainData | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Scores:
    """float64 [size] for each group; the channels of lowest score should go first.

    name: of the criterion. One without a function for channels, also a user's, is summed over the weights that make or
    read the channel. loss: of the data's labels, or what stands in for them when it is None.
    Raises InputError when the criterion needs data that isn't there, is not for channels, or returns no scores.
    """
    known = criterion(name)
    if not known.of_channels:
        raise InputError(f'prune.criterion = "{name}" scores single weights only; for channels use "fisher"')
    if known.samples and data is None:
        raise InputError(f'prune.criterion = "{name}" needs training data; "l1", "l2" and "random" do not')
    if known.channels is not None:
        return known.channels(ChannelEvidence(model, groups, data, loss, seed))
    score, random = load_criterion(name), np.random.default_rng(seed)
    gradients = _gradients(model, data, loss, seed) if data is not None and known.gradients else {}

    def scores(weight: str, layer: str) -> np.ndarray:
        array = present(constant(model.graph.initializers[weight])).astype(np.float64)
        return score(array, Statistics(draw=random.random(array.shape), **gradients.get(weight, {})), layer)

    return {g: _of_weights(g, scores) for g in groups}


def _of_weights(group: ChannelGroup, scores: Callable[[str, str], np.ndarray]) -> np.ndarray:
    layers = {x.weight: x.node for x in (*group.made_by, *group.read_by)}
    total = np.zeros(group.size)
    for m in group.members:
        if m.value in layers:
            total += by_channel(scores(m.value, layers[m.value]), m.axis, m, group.size)
    return total


def _gradients(model: ir.Model, data: TrainData, loss: Loss | None, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """For each weight what `Statistics` calls gradient and squared_gradient, means over batches."""
    import torch

    from edgecompress.train.module.torch_model import TorchModel

    module = TorchModel(model, logits=True).eval()
    generator = torch.Generator().manual_seed(seed)
    names, count = list(module.weights), 0
    sums = {n: [np.zeros(tuple(w.shape)), np.zeros(tuple(w.shape))] for n, w in module.weights.items()}
    for batch in batches(data, seed):
        outputs = module(*batch.inputs)
        if loss is None:
            value = sampled_loss(outputs, generator) / len(batch.index)
        else:
            value = loss(outputs, batch.labels, batch)
        gradients = torch.autograd.grad(value, [module.weights[n] for n in names], allow_unused=True)
        for n, g in zip(names, gradients):
            array = 0.0 if g is None else g.numpy().astype(np.float64)
            sums[n][0] += array
            sums[n][1] += np.square(array)
        count += 1
    return {n: {"gradient": s / max(count, 1), "squared_gradient": q / max(count, 1)} for n, (s, q) in sums.items()}
