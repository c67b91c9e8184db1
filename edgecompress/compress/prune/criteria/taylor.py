"""The first-order change of the loss."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.channel_samples import gates, mean_over_samples
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, Statistics, of_channels, of_weights


@of_weights(gradients=True)
def taylor(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """|w dL/dw|: the loss's first-order change without w (P. Molchanov et al., "Importance estimation for neural
    network pruning", 2019, equation 8)."""
    assert known.gradient is not None
    return np.abs(weight * known.gradient)


@of_channels(samples=True, labels=True, damage=True)
def taylor_of_channels(evidence: ChannelEvidence) -> Scores:
    """|E[dL/dg]| for a gate g = 1 on the channel (Molchanov et al., section 3.2)."""
    return mean_over_samples(evidence, gates(evidence), np.asarray, np.abs)
