"""The size of a weight times that of its input."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.criterion import of_layers
from edgecompress.compress.prune.layer_matrix import LayerMatrix


@of_layers
def wanda(layer: LayerMatrix) -> tuple[np.ndarray, np.ndarray]:
    """|w| E[x^2]^(1/2), compared in each row of the weight (M. Sun et al., "A simple and effective pruning approach for
    large language models", 2023, section 3); the weights that stay are left as they are."""
    mask = layer.highest(np.abs(layer.weights) * np.sqrt(layer.energy))
    return np.where(mask, layer.weights, 0.0), mask
