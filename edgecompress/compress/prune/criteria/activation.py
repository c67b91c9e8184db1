"""The size of a channel's values."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.channel_samples import mean_over_samples, output_sizes
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, of_channels


@of_channels(samples=True)
def activation(evidence: ChannelEvidence) -> Scores:
    """Mean |output| of the layers that make the channel."""
    return mean_over_samples(evidence, output_sizes(evidence), np.asarray, np.asarray)
