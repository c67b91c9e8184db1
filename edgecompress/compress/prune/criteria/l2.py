"""The square of a weight."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.criterion import Statistics, of_weights


@of_weights()
def l2(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """w^2."""
    return np.square(weight)
