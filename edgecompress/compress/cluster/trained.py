"""A codebook that is trained: each weight keeps its centroid, and the centroids' values change."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.compress.cluster.codebooks import rounded_scale
from edgecompress.compress.quantize.weight_scales import LIMIT
from edgecompress.graph.annotations import Codebook


class TrainedCodebook(nn.Module):
    """In place of a clustered weight: scale[channel] * centroids[index].

    The gradient of a centroid is the sum over the weights that have it (S. Han et al., "Deep compression", ICLR 2016,
    section 3). A centroid at zero stays: it holds what was pruned. Scales are learned as logarithms of their ratio to
    where they began, centroids as shares of the largest. whole: centroids are int8 numbers.
    scale: float32 [channels] along `axis`, or [1] with axis None.
    """

    moves: Tensor
    indices: Tensor
    start: Tensor

    def __init__(self, book: Codebook, scale: np.ndarray, axis: int | None, whole: bool) -> None:
        super().__init__()
        values = book.centroids.astype(np.float64)
        self.largest = float(LIMIT if whole else np.abs(values).max(initial=0.0) or 1.0)
        self.whole, self.axis = whole, axis
        self.centroids = nn.Parameter(torch.from_numpy((values / self.largest).astype(np.float32)))
        self.register_buffer("moves", torch.from_numpy((values != 0).astype(np.float32)))
        self.register_buffer("indices", torch.from_numpy(book.indices.astype(np.int64)))
        self.register_buffer("start", torch.from_numpy(scale.astype(np.float32)))
        alike = bool((self.start == self.start[0]).all())  # one scale for all channels stays one
        self.log_ratio = nn.Parameter(torch.zeros(1 if alike else len(self.start)))

    def scale(self) -> Tensor:
        """The scales as they are now: float32 [channels] or [1]."""
        return self.start * self.log_ratio.exp()

    def values(self) -> Tensor:
        """The centroids: [n], whole numbers if `whole`."""
        values = self.centroids * self.moves * self.largest
        if not self.whole:
            return values
        return values + (values.detach().round().clamp(-LIMIT, LIMIT) - values).detach()

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that takes the place of `weight`, of the same shape."""
        shape = [1] * weight.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return self.values()[self.indices] * self.scale().reshape(shape)

    def codebook(self) -> Codebook:
        """The current codebook; centroids that became equal are merged."""
        with torch.no_grad():
            values = self.values().cpu().numpy()
        values = np.rint(values).astype(np.int8) if self.whole else values.astype(np.float32)
        distinct, place = np.unique(values, return_inverse=True)
        indices = place.astype(np.uint8)[self.indices.cpu().numpy()]
        return Codebook(distinct, indices, None if self.whole else self.scales(), None if self.whole else self.axis)

    def scales(self) -> np.ndarray:
        """float32 [channels] or [1], of few digits, as clustering leaves them: they lie in the file's header."""
        with torch.no_grad():
            scale = self.scale().expand_as(self.start).cpu().numpy()
            return rounded_scale(scale).astype(np.float32)
