"""How gates begin: which channels of a layer they open and close together, and which blocks give way first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.analysis.channel_groups import ChannelGroup, channel_groups
from edgecompress.compress.gated_channels.insertion import GateNames, with_gates
from edgecompress.compress.prune.channel_samples import batches, sampled_loss
from edgecompress.compress.prune.channels import reorder_channels
from edgecompress.graph.annotations import sparsity
from edgecompress.graph.channel_axes import shape
from edgecompress.recipe import Gate
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel

LEAST = 1e-3  # of the mean of all effects, below which they count as equal

Slopes = Mapping[str, np.ndarray]  # by the value that a gate closes: [n, channels]


def sorted_channels(model: ir.Model, settings: Gate, data: TrainData, seed: int) -> tuple[ir.Model, Slopes]:
    """A copy of a canonical model that computes the same, in which the channels of each convolution that will have a
    gate are sorted by their effect on the loss, so that blocks hold channels of like effect; and dL/dg of each channel
    for each of many samples, where g = 1 is what a gate would multiply it with.

    The order stays as it is where a pattern of pruned weights would be broken. Raises what `with_gates` does.
    """
    closed = {g.image for g in with_gates(model, settings)[1]}
    single, gates = with_gates(model, settings.model_copy(update={"block": 1}))
    slopes, orders = _slopes(single, [g for g in gates if g.image in closed], data, seed), {}
    for group in channel_groups(model):
        name = next((m.value for m in group.members if m.axis == 1 and m.value in slopes), None)
        if name is not None and group.fixed is None and not _has_pattern(model, group):
            orders[group] = np.argsort(-_effect(slopes[name]), kind="stable")
            slopes[name] = slopes[name][:, orders[group]]
    return reorder_channels(model, orders), slopes


def start_gates(model: ir.Model, gates: Sequence[GateNames], slopes: Slopes) -> None:
    """Set the biases of all gates of a model, in place, so that each gate's blocks give way in the order of their
    effect on the loss, for every sample alike. What differs between samples is learned.

    The effect is the root mean square of dL/dg (its Fisher information; Theis et al., "Faster gaze prediction with
    dense networks and Fisher pruning", 2018). Its logarithm is the logit, with mean 0 and standard deviation 1 over
    each gate: with logits that are all alike instead, whole layers close at once when a budget is met, and with a
    prediction of each sample's own order the network loses far more than it learns again.
    """
    for g in gates:
        bias = model.graph.initializers[g.bias]
        effect = _effect(slopes[g.image].reshape(len(slopes[g.image]), shape(bias)[0], -1).sum(2))
        logits = np.log(effect + max(LEAST * float(effect.mean()), 1e-30))
        logits = (logits - logits.mean()) / max(float(logits.std()), 1e-12)
        bias.const_value = ir.tensor(logits.astype(np.float32), name=g.bias)


def _effect(slopes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(slopes).mean(0))


def _has_pattern(model: ir.Model, group: ChannelGroup) -> bool:
    rows = (sparsity(model.graph.initializers.get(m.value)) for m in group.members)
    return any(row is not None and row.pattern != "unstructured" for row in rows)


def _slopes(model: ir.Model, gates: Sequence[GateNames], data: TrainData, seed: int) -> dict[str, np.ndarray]:
    module, generator = TorchModel(model, logits=True).eval(), torch.Generator().manual_seed(seed)
    found: dict[str, list[np.ndarray]] = {g.image: [] for g in gates}
    for batch in batches(data, seed):
        outputs, values = module(*batch.inputs, capture=[g.gate for g in gates])
        slopes = torch.autograd.grad(sampled_loss(outputs, generator), [values[g.gate] for g in gates])
        for g, slope in zip(gates, slopes):
            found[g.image].append(slope.double().numpy())
    return {name: np.concatenate(rows) for name, rows in found.items()}
