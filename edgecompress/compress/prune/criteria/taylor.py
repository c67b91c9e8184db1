"""The first-order change of the loss."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.channel_samples import gates, in_batches, mean_over_samples
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, Statistics, of_channels, of_weights


@of_weights(gradients=True)
def taylor(weight: np.ndarray, known: Statistics) -> np.ndarray:
    """E[(w dL/dw)^2] over batches: the square of the loss's first-order change without w (P. Molchanov et al.,
    "Importance estimation for neural network pruning", 2019, equation 8, averaged as in section 3.3)."""
    assert known.squared_gradient is not None
    return np.square(weight) * known.squared_gradient


@of_channels(samples=True, labels=True, damage=True)
def taylor_of_channels(evidence: ChannelEvidence) -> Scores:
    """E[(dL/dg)^2]^(1/2) over batches, for a gate g = 1 on the channel (Molchanov et al., section 3.2).

    The gradients of samples cancel out near a minimum of the loss; their squares over batches don't. The root gives the
    unit of the loss, which compares with what a channel costs.
    """
    squares = mean_over_samples(evidence, in_batches(gates(evidence)), lambda batch: np.square(batch.mean(0)))
    return {group: np.sqrt(s) for group, s in squares.items()}
