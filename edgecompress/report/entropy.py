"""Entropy: the fewest bits that a code of single values can take."""

from __future__ import annotations

import numpy as np


def entropy(values: np.ndarray) -> float:
    """Bits a value of the empirical distribution (Shannon 1948): -sum p log2 p."""
    if values.size == 0:
        return 0.0
    counts = np.unique(values.reshape(-1), return_counts=True)[1]
    share = counts / values.size
    return float(-(share * np.log2(share)).sum())
