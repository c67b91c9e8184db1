"""How far training moved a weight."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.criterion import Statistics, of_weights


@of_weights(gradients=True, channels=False)
def movement(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """-sum of w dL/dw' over the steps of training, w' the masked weight: how far training moved w away from zero, below
    zero where it moved towards it (V. Sanh et al., "Movement pruning", 2020, equation 3). Pruned weights are scored on,
    by the gradient of what is read in their place, and come back where that asks for them (section 4)."""
    assert known.movement is not None
    return known.movement
