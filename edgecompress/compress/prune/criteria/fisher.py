"""The second-order change of the loss."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.channel_samples import gates, mean_over_samples
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, Statistics, of_channels, of_weights


@of_weights(gradients=True)
def fisher(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """w^2 F, with the empirical Fisher information F = E[(dL/dw)^2] for the diagonal of the Hessian (Y. LeCun et al.,
    "Optimal brain damage", 1990; L. Theis et al., "Faster gaze prediction with dense networks and Fisher pruning",
    2018)."""
    assert known.squared_gradient is not None
    return np.square(weight) * known.squared_gradient


@of_channels(samples=True, damage=True)
def fisher_of_channels(evidence: ChannelEvidence) -> Scores:
    """E[(dL/dg)^2] / 2 for a gate g = 1 on the channel: the loss's second-order change without the channel (Theis et
    al., equation 5; L. Liu et al., "Group Fisher pruning", 2021)."""
    return mean_over_samples(evidence, gates(evidence), np.square, lambda mean: mean / 2)
