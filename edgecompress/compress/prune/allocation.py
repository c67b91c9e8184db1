"""How many weights each layer keeps, from one number for the whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

# Scores of the blocks of each layer and their sizes -> scores that can be compared between layers.
Comparable = Callable[[np.ndarray, np.ndarray], np.ndarray]


def rank(units: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The share of the layer's weights that score less: with one threshold every layer keeps the same share."""
    order = np.argsort(units, axis=None, kind="stable")
    below = np.cumsum(sizes.ravel()[order]) - sizes.ravel()[order]
    ranks = np.empty(units.size)
    ranks[order] = below / sizes.sum()
    return ranks.reshape(units.shape)


def magnitude(units: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The scores as they are: one threshold for all layers."""
    return units


def lamp(units: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Each score as a share of all that are at least as large (J. Lee et al., "Layer-adaptive sparsity for the
    magnitude-based pruning", ICLR 2021, equation 1, whose scores are squared weights): no layer is pruned away.

    Scores below 0 are all raised by the lowest.
    """
    units = units - min(units.min(initial=0.0), 0.0)
    order = np.argsort(-units, axis=None, kind="stable")
    total = np.cumsum((units * sizes).ravel()[order])
    shares = np.empty(units.size)
    shares[order] = units.ravel()[order] / np.maximum(total, np.finfo(np.float64).tiny)
    return shares.reshape(units.shape)


ALLOCATIONS: dict[str, Comparable] = {"uniform": rank, "global": magnitude, "lamp": lamp}


def choose(scores: Sequence[np.ndarray], sizes: Sequence[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Which blocks stay, bool as `scores`: the highest of all layers, so that at least `sparsity` of all weights go
    and no block less. Every layer keeps its best block: a layer without any would cut the model in two.

    scores: comparable between layers; sizes: weights in each block.
    """
    flat, counts = np.concatenate([s.ravel() for s in scores]), np.concatenate([s.ravel() for s in sizes])
    order = np.argsort(flat, kind="stable")
    removed = np.cumsum(counts[order])
    enough = int(np.searchsorted(removed, sparsity * counts.sum() - 1e-9)) + 1 if sparsity > 0 else 0
    kept = np.ones(len(flat), bool)
    kept[order[:enough]] = False
    parts = np.split(kept, np.cumsum([s.size for s in scores])[:-1])
    result = [part.reshape(s.shape) for part, s in zip(parts, scores)]
    for part, s in zip(result, scores):
        if not part.any():
            part.flat[np.argmax(s)] = True
    return result
