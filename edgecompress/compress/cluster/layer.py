"""One layer's weights as indices into a codebook, for the least error of its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from edgecompress.compress.cluster import codebooks as codebook
from edgecompress.compress.cluster.assignment import assign, conditional_energy, improve
from edgecompress.compress.cluster.codebooks import Bits, Centroids
from edgecompress.compress.quantize.moments import Moments

DAMPING = 0.01  # of the mean input energy; as in GPTQ
REFITS = 4
ROUNDS = 2  # of coordinate descent for one codebook


@dataclass(frozen=True)
class Price:
    """Even centroids; an index one bit longer has to take `noise` off the layer's noise-to-signal ratio."""

    noise: float


@dataclass(frozen=True, eq=False)
class ClusteredWeights:
    """centroids: those in use, ascending. indices: uint8 [channels, k]."""

    centroids: Centroids
    indices: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """Weights, float64 [channels, k]."""
        return self.centroids.of(self.indices)


def cluster_weights(
    matrix: np.ndarray,
    moments: Moments,
    how: Bits | Price,
    *,
    per_channel: bool,
    whole: bool,
    least: np.ndarray | float = 0.0,
) -> ClusteredWeights:
    """Cluster a layer's weights [channels, k]; weights that are zero have been pruned, and stay so.

    The layer's inputs may come from layers that were clustered before and differ from the float model's:
    first the weights are moved to where they make the outputs wanted of these inputs, by least squares.
    per_channel: each channel has its own scale under the layer's centroids. whole: centroids are int8.
    least: spread of weights, for each channel or all, that scales are to suit at least.
    """
    pruned = matrix == 0
    target, hessian = moments.solution(DAMPING, matrix), moments.damped(DAMPING)
    scale = codebook.spread(target, pruned, per_channel, least)
    importance = np.repeat(conditional_energy(hessian), len(matrix) // len(hessian), axis=0)
    price, refits = 0.0, 0
    if isinstance(how, Price):
        price = how.noise * max(float(moments.energy.sum()), codebook.TINY)
        centroids = codebook.lattice(target, scale, importance, price, whole)
    else:
        refits = REFITS
        centroids = codebook.clustered(target, scale, importance, pruned, how, whole=whole)
    step = partial(_descend, target, hessian, price, pruned)
    lengths = code_lengths(centroids.nearest(target), len(centroids.values))
    indices = assign(target, hessian, centroids.scale, centroids.values, lengths * price, pruned)
    indices = step(centroids, indices)
    for _ in range(refits):
        centroids = codebook.refitted(centroids, indices, target, hessian, per_channel=per_channel, whole=whole)
        indices = step(centroids, indices)
    return _compact(centroids, indices)


def code_lengths(indices: np.ndarray, count: int) -> np.ndarray:
    """Bits of each of `count` indices in an ideal code for how often they occur; unused ones cost most."""
    counts = np.bincount(indices.ravel(), minlength=count) + 0.5
    return -np.log2(counts / counts.sum())


def _descend(
    target: np.ndarray, hessian: np.ndarray, price: float, pruned: np.ndarray, centroids: Centroids, indices: np.ndarray
) -> np.ndarray:
    for _ in range(ROUNDS):
        lengths = code_lengths(indices, len(centroids.values))
        indices = improve(target, hessian, centroids.scale, centroids.values, lengths * price, pruned, indices)
    return indices


def _compact(centroids: Centroids, indices: np.ndarray) -> ClusteredWeights:
    """Ascending centroids, each once, only those in use."""
    used = np.unique(indices)
    values, place = np.unique(centroids.values[used], return_inverse=True)
    renamed = np.zeros(len(centroids.values), np.uint8)
    renamed[used] = place
    return ClusteredWeights(Centroids(values, centroids.scale), renamed[indices])
