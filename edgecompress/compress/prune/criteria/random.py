"""Random scores, the baseline for the other criteria."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.criterion import Statistics, of_weights


@of_weights()
def random(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """Uniform random numbers, independent of the weight."""
    assert known.draw is not None
    return known.draw
