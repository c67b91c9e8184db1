"""The size of a weight."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.criterion import Statistics, of_weights


@of_weights()
def l1(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """|w| (H. Li et al., "Pruning filters for efficient ConvNets", 2017)."""
    return np.abs(weight)
