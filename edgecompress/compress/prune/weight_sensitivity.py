"""What pruning one layer alone does to a model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.compress.prune.allocation import rank
from edgecompress.compress.prune.masks import Prunable
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel

RATIOS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
SAMPLES = 256


def noise_of_layers(
    model: ir.Model, weights: Sequence[Prunable], pattern: Pattern, data: TrainData
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """For each weight's name, the noise-to-signal ratio of the model's outputs (before a Softmax) as a function of the
    share of that layer's weights that goes, smallest first: measured at RATIOS, linear between, rising."""
    module = TorchModel(model, logits=True).eval()
    batch = data.batch(np.arange(min(SAMPLES, len(data))))
    with torch.no_grad():
        wanted = module(*batch.inputs)[0]
        signal = float(wanted.square().sum()) or 1.0
        curves = {}
        for w in weights:
            parameter = module.weights[w.name]
            original = parameter.detach().clone()
            scores = to_taps(w.node, original.square().numpy())
            units, sizes = pattern.units(scores), pattern.sizes(scores.shape)
            ranks, noise = rank(units, sizes), []
            for ratio in RATIOS:
                mask = from_taps(w.node, pattern.mask(ranks >= ratio, scores.shape), tuple(original.shape))
                parameter.copy_(original * torch.from_numpy(mask.copy()))
                noise.append(float((module(*batch.inputs)[0] - wanted).square().sum()) / signal)
            parameter.copy_(original)
            curves[w.name] = _curve(np.maximum.accumulate(noise))
    return curves


def _curve(noise: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    # past the last ratio the layer is all but gone: noise rises on, so that higher ranks still count more
    xs, ys = [*RATIOS, 1.0], [*noise, 2 * noise[-1] + 1e-12]
    return lambda shares: np.interp(shares, xs, ys) + 1e-12 * shares
