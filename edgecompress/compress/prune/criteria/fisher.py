"""The second-order change of the loss."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.channel_samples import gates, mean_over_samples
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, Statistics, of_channels, of_weights


@of_weights(gradients=True, per_sample=True)
def fisher(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """w^2 F / 2, with the empirical Fisher information F = E[(dL_n/dw)^2] over samples n for the diagonal of the
    Hessian (Y. LeCun et al., "Optimal brain damage", 1990; L. Theis et al., "Faster gaze prediction with dense networks
    and Fisher pruning", 2018, equation 5)."""
    assert known.fisher is not None
    return np.square(weight) * known.fisher / 2


@of_channels(samples=True, damage=True)
def fisher_of_channels(evidence: ChannelEvidence) -> Scores:
    """E[(dL_n/dg)^2] / 2 for a gate g = 1 on the channel: the loss's second-order change without the channel (Theis et
    al., equation 5; L. Liu et al., "Group Fisher pruning", 2021)."""
    return mean_over_samples(evidence, gates(evidence), lambda batch: np.square(batch).mean(0) / 2)
