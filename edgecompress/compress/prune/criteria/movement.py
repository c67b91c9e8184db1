"""How far training moved a weight."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.criterion import Statistics, of_weights


@of_weights(gradients=True, channels=False)
def movement(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """How far training moved w away from zero (V. Sanh et al., "Movement pruning", 2020, section 4)."""
    assert known.movement is not None
    return np.asarray(known.movement - known.movement.min())
