"""The scales of BatchNormalization, after training has made them small: network slimming."""

from __future__ import annotations

import numpy as np

from edgecompress.compress.prune.channel_samples import by_channel
from edgecompress.compress.prune.criterion import ChannelEvidence, Scores, of_channels
from edgecompress.errors import InputError
from edgecompress.graph.fusion import constant
from edgecompress.support.present import present


@of_channels(slims=True)
def scale(evidence: ChannelEvidence) -> Scores:
    """|gamma| of the BatchNormalization that the channel goes through, the mean over several (Z. Liu et al., "Network
    slimming", 2017, section 3). allocation = "global" has the paper's one threshold for the scales of all layers.

    Raises InputError for a group of channels that goes through none.
    """
    gammas: dict[str, np.ndarray] = {}
    for node in evidence.model.graph:
        if node.op_type == "BatchNormalization":
            gamma = present(node.inputs[1])
            gammas[str(gamma.name)] = np.abs(present(constant(gamma)))
    scores = {}
    for group in evidence.groups:
        scales = [by_channel(gammas[m.value], 0, m, group.size) for m in group.members if m.value in gammas]
        if not scales:
            raise InputError(
                f'prune.criterion = "scale": no BatchNormalization follows {group.name}; use another criterion, '
                "or load the model with fold_batchnorm=False"
            )
        scores[group] = np.mean(scales, axis=0)
    return scores
