"""The error of a layer's outputs without a weight, where the weights behind it make up for that error."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.criterion import of_layers
from edgecompress.compress.prune.layer_matrix import LayerMatrix
from edgecompress.compress.quantize.eliminate import BLOCK, eliminate
from edgecompress.compress.quantize.moments import damped, inverse_factors

DAMPING = 0.01  # of the mean input energy, as published


@of_layers
def sparsegpt(layer: LayerMatrix) -> tuple[np.ndarray, np.ndarray]:
    """w^2 / [H^-1]_jj with H = E[x x^T] over column j and those behind it, which then take the error over (E. Frantar
    and D. Alistarh, "SparseGPT", 2023, algorithm 1). Blocks of 128 columns choose together, each N of M alone."""
    mask, factors = np.zeros(layer.weights.shape, bool), inverse_factors(damped(layer.moments, DAMPING))
    energy = np.square(np.diagonal(factors, axis1=1, axis2=2))  # 1 / [H^-1]_jj without the columns in front
    scale = np.repeat(energy, len(mask) // len(energy), axis=0)
    starts = layer.blocks(BLOCK)
    chosen = [int(s) for s in layer.units()] if layer.pattern.keep is not None else starts
    ends = dict(zip(chosen, [*chosen[1:], layer.weights.shape[1]], strict=True))

    def kept(current: np.ndarray, j: int) -> np.ndarray:
        if (end := ends.get(j)) is not None:
            scores = np.square(current[:, j:end]) / scale[:, j:end]
            mask[:, j:end] = layer.stays_of(np.where(layer.free[:, j:end], scores, -1.0), j) & layer.free[:, j:end]
        return np.where(mask[:, j], current[:, j], 0.0)

    return eliminate(np.where(layer.energy == 0, 0.0, layer.weights), factors, kept, starts), mask
