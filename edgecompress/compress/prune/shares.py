"""How the layers share a lower sparsity than was asked for: those that it harms most give it back first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

STEPS = 1000  # of the sparsities that a layer may have
NOTHING = 1e-12  # makes noise rise strictly


@dataclass(frozen=True)
class LayerShare:
    """A layer's part in a sparsity. weights: how many it has. asked: the share of them that goes at most, 0 to 1.

    noise: what another of its weights adds to the outputs' noise when such a share has gone, rising.
    all_or_none: whether it has that share or none, as with a pattern of N of M.
    """

    weights: int
    asked: float
    noise: Callable[[np.ndarray], np.ndarray]
    all_or_none: bool = False


def within(layers: Mapping[str, LayerShare], total: float) -> dict[str, float]:
    """The share of its weights that goes in each layer, by name, so that about `total` of all go, and never more.

    In all layers that give way another weight would add equal noise to the outputs, in the others less: what harms
    little stays as it is.
    """
    everything = sum(layer.weights for layer in layers.values())
    grids = {name: _grid(layer) for name, layer in layers.items()}

    def shares(limit: float) -> dict[str, float]:
        return {name: float(sizes[noise <= limit].max(initial=0.0)) for name, (sizes, noise) in grids.items()}

    def total_of(limit: float) -> float:
        found = shares(limit)
        return sum(layers[name].weights * share for name, share in found.items()) / everything

    limits = np.unique(np.concatenate([noise for _, noise in grids.values()]))
    low, high = -1, len(limits)  # places: the first is always low enough, the last too high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total_of(limits[middle]) <= total + 1e-9 else (low, middle)
    return shares(limits[low]) if low >= 0 else dict.fromkeys(layers, 0.0)


def _grid(layer: LayerShare) -> tuple[np.ndarray, np.ndarray]:
    """(shares that the layer may have, the noise of each, strictly rising)."""
    sizes = np.array([0.0, layer.asked]) if layer.all_or_none else np.linspace(0.0, layer.asked, STEPS)
    noise = np.maximum.accumulate(layer.noise(sizes)) + NOTHING * sizes
    noise[0] = 0.0
    return sizes, noise
