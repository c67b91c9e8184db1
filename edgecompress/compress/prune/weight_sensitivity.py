"""What pruning one layer alone does to a model's outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.compress.prune.allocation import rank
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.compress.prune.pruned_weights import Prunable
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel

RATIOS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
SAMPLES = 256


def noise_of_layers(
    model: ir.Model, weights: Sequence[Prunable], pattern: Pattern, data: TrainData
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """For each weight's name, what another of its weights adds to the noise-to-signal ratio of the model's outputs
    (before a Softmax), as a function of the share of them that went before, smallest first; measured at RATIOS.

    Where all layers are pruned to the same of it, no other shares with as many zeros have less noise in sum (the
    condition of Lagrange), as far as the layers' noise adds up.
    """
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
            curves[w.name] = marginal(RATIOS, noise, original.numel())
    return curves


def marginal(ratios: Sequence[float], noise: Sequence[float], units: float) -> Callable[[np.ndarray], np.ndarray]:
    """The slope of the noise over units removed, as a function of the share that is: of the largest convex curve below
    the points, so that it rises. At the share 1, where the layer is gone, the noise counts twice.

    ratios: rising from 0, without 1; units: as many as the share 1 is.
    """
    xs, ys = np.array([*ratios, 1.0]), np.maximum.accumulate([*noise, 2 * max(noise) + 1e-12])
    hull = [0]
    for i in range(1, len(xs)):
        while len(hull) > 1 and _slope(xs, ys, hull[-2], hull[-1]) >= _slope(xs, ys, hull[-1], i):
            hull.pop()
        hull.append(i)
    slopes = np.array([_slope(xs, ys, a, b) for a, b in itertools.pairwise(hull)])
    middles = (xs[hull[1:]] + xs[hull[:-1]]) / 2
    return lambda shares: (np.interp(shares, middles, slopes) + 1e-9 * shares) / units


def _slope(xs: np.ndarray, ys: np.ndarray, first: int, last: int) -> float:
    return float((ys[last] - ys[first]) / (xs[last] - xs[first]))
