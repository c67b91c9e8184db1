"""The size of a channel's values."""

from __future__ import annotations

from edgecompress.compress.prune.channel_samples import mean_over_samples, sizes_as_read
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, of_channels


@of_channels(samples=True)
def activation(evidence: ChannelEvidence) -> Scores:
    """Mean |value| of the channel as the layers that read it get it, so behind its activation function (P. Molchanov et
    al., "Pruning convolutional neural networks for resource efficient inference", 2017, section 2.2)."""
    return mean_over_samples(evidence, sizes_as_read(evidence), lambda batch: batch.mean(0))
