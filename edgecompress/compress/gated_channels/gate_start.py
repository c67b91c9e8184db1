"""What gates say before they are trained: which channels matter for a sample, told by what the gate reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.compress.gated_channels.insertion import GateNames
from edgecompress.compress.prune.channel_samples import batches, sampled_loss
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel

RIDGE = 0.03  # of the variance of what a gate reads: a penalty that hundreds of channels need where samples are few
LEAST = 1e-3  # of the mean of all effects, below which they count as equal


def start_gates(model: ir.Model, gates: Sequence[GateNames], data: TrainData, seed: int) -> None:
    """Set the weights and biases of all gates of a model, in place, to a linear prediction of the effect of each block
    of channels on the loss of a sample, as its logarithm with mean 0 and standard deviation 1 over each gate.

    The effect is the block's root mean square of dL/dg (its Fisher information, where g = 1 is what the gate multiplies
    with; Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018) times how large its
    values are for this sample over how large they are in the mean (Gao et al., section 3.2, predict that size). With
    logits that are all alike instead, whole layers close at once when a budget is met.
    """
    for gate, (read, effect) in _effects(model, gates, data, seed).items():
        logits = np.log(effect + max(LEAST * float(effect.mean()), 1e-30))
        logits = (logits - logits.mean()) / max(float(logits.std()), 1e-12)
        deviation = np.maximum(read.std(0), 1e-6 * max(float(np.abs(read).max()), 1e-30))
        x, middle = (read - read.mean(0)) / deviation, logits.mean(0)
        slope = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (logits - middle))
        slope /= deviation[:, None]
        for name, array in ((gate.weight, slope.T), (gate.bias, middle - read.mean(0) @ slope)):
            model.graph.initializers[name].const_value = ir.tensor(array.astype(np.float32), name=name)


def _effects(
    model: ir.Model, gates: Sequence[GateNames], data: TrainData, seed: int
) -> dict[GateNames, tuple[np.ndarray, np.ndarray]]:
    """Of each gate [n, inputs], what it reads, and [n, blocks], how large the effect of each block is."""
    module, generator = TorchModel(model, logits=True).eval(), torch.Generator().manual_seed(seed)
    read: dict[GateNames, list[np.ndarray]] = {g: [] for g in gates}
    sizes: dict[GateNames, list[np.ndarray]] = {g: [] for g in gates}
    squares: dict[GateNames, list[np.ndarray]] = {g: [] for g in gates}
    for batch in batches(data, seed):
        names = [name for g in gates for name in (g.read, g.image, g.gate)]
        outputs, values = module(*batch.inputs, capture=names)
        slopes = torch.autograd.grad(sampled_loss(outputs, generator), [values[g.gate] for g in gates])
        for g, slope in zip(gates, slopes):
            size = values[g.image].detach().abs().mean((2, 3)).unflatten(1, (slope.shape[1], -1)).mean(2)
            for rows, array in ((read, values[g.read]), (sizes, size), (squares, slope.square())):
                rows[g].append(array.detach().numpy().astype(np.float64))
    found = {}
    for g in gates:
        size, square = np.concatenate(sizes[g]), np.concatenate(squares[g])
        found[g] = np.concatenate(read[g]), np.sqrt(square.mean(0)) * size / np.maximum(size.mean(0), 1e-30)
    return found
