"""The centroids of a layer: found by k-means, or evenly spaced by the price of a bit.

Centroids multiply a scale of each output channel. Those of int8 weights are whole numbers up to 127.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgecompress.compress.cluster.kmeans import kmeans
from edgecompress.compress.quantize.weight_scales import LIMIT, SMALLEST_RATIO

FINEST = 63  # centroids on each side of zero: 7 bits, hardly more than a int8 weight's own
DIGITS = 3  # of a scale: in a file's header each takes two bytes then, and nothing else depends on them
TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Centroids:
    """values: ascending, [n]. scale: float64 [channels]; a weight is scale[channel] * values[index]."""

    values: np.ndarray
    scale: np.ndarray

    def of(self, indices: np.ndarray) -> np.ndarray:
        """Real weights: [channels, k]."""
        return self.scale[:, None] * self.values[indices]

    def nearest(self, matrix: np.ndarray) -> np.ndarray:
        """Indices, int64 [channels, k], of the centroids nearest to each weight."""
        between = (self.values[1:] + self.values[:-1]) / 2
        return np.searchsorted(between, matrix / self.scale[:, None])


@dataclass(frozen=True)
class Bits:
    """2^bits centroids by k-means from `init`, then refitted to what the layer makes of them."""

    bits: int
    init: str = "optimal"
    seed: int = 0


def spread(matrix: np.ndarray, pruned: np.ndarray, per_channel: bool, least: np.ndarray | float = 0.0) -> np.ndarray:
    """Root mean square of the weights of each channel that aren't pruned, or of all channels: [channels] > 0.

    least: [channels] or one number that it is raised to.
    """
    squares, counts = np.square(np.where(pruned, 0.0, matrix)).sum(axis=1), (~pruned).sum(axis=1)
    if not per_channel:
        squares[:], counts[:], least = squares.sum(), counts.sum(), np.max(least)
    found = np.maximum(np.sqrt(squares / np.maximum(counts, 1)), least)
    floor = found.max() * SMALLEST_RATIO
    return np.maximum(found, floor if floor > 0 else 1.0)


def clustered(
    matrix: np.ndarray, scale: np.ndarray, importance: np.ndarray, pruned: np.ndarray, how: Bits, *, whole: bool
) -> Centroids:
    """At most 2^bits centroids by k-means over a layer's weights, each divided by its channel's scale.

    importance: what an error in each weight costs, [channels, k]. pruned: these get a centroid at zero.
    whole: centroids will be whole numbers.
    """
    values = np.where(pruned, 0.0, matrix / scale[:, None])
    weights = importance * scale[:, None] ** 2
    values[~pruned & (values == 0)] = TINY  # only pruned weights are to have zero for themselves
    weights = np.where(weights > 0, weights, weights[weights > 0].min(initial=1.0))
    return rounded(Centroids(kmeans(values, weights, 2**how.bits, init=how.init, seed=how.seed), scale), whole)


def lattice(matrix: np.ndarray, scale: np.ndarray, importance: np.ndarray, price: float, whole: bool) -> Centroids:
    """Evenly spaced centroids about zero, as far as the weights reach.

    With entropy coding even steps are the best ones at high rates (H. Gish and J. Pierce, "Asymptotically
    efficient quantizing", IEEE Trans. IT 14(5), 1968). A step d makes noise of d^2 / 12, and one more bit
    halves d: noise falls by d^2 / 6 * ln 2 for each bit, which at the best step is the bit's price.
    importance: what an error in each weight costs, [channels, k].
    """
    cost = np.exp(np.log(np.maximum(importance * scale[:, None] ** 2, TINY)).mean())
    step = np.sqrt(6 * price / (np.log(2) * cost))
    reach = np.abs(matrix / scale[:, None]).max()
    half = int(np.clip(np.ceil(reach / max(step, TINY) - 0.5), 1, FINEST))
    step = max(step, reach / (half + 0.5))
    values = np.arange(-half, half + 1) * (float(LIMIT // half) if whole else 1.0)
    return Centroids(values, rounded_scale(scale * step / (values[-1] / half)))


def refitted(
    centroids: Centroids,
    indices: np.ndarray,
    target: np.ndarray,
    hessian: np.ndarray,
    *,
    per_channel: bool,
    whole: bool,
) -> Centroids:
    """Scales, then centroids of least squared error for given indices; a centroid at zero stays there.

    target: [channels, k]; hessian: [groups, k, k]: an error e [k] of a channel costs e^T hessian e.
    """
    shape = (len(hessian), -1, target.shape[1])
    wanted = (target.reshape(shape) @ hessian).reshape(target.shape)
    if per_channel:
        chosen = centroids.values[indices]
        energy = ((chosen.reshape(shape) @ hessian).reshape(target.shape) * chosen).sum(axis=1)
        scale = (wanted * chosen).sum(axis=1) / np.where(energy > 0, energy, 1.0)
        centroids = replace(centroids, scale=np.where((energy > 0) & (scale > 0), scale, centroids.scale))
    return rounded(replace(centroids, values=_least_squares(centroids, indices, wanted, hessian)), whole)


def _least_squares(centroids: Centroids, indices: np.ndarray, wanted: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Centroids from the normal equations over all channels: [n], ascending."""
    n, per_group = len(centroids.values), len(indices) // len(hessian)
    left, right = np.zeros((n, n)), np.zeros(n)
    members = np.zeros((indices.shape[1], n))
    for channel, row in enumerate(indices):
        members[:] = 0.0
        members[np.arange(len(row)), row] = centroids.scale[channel]
        left += members.T @ (hessian[channel // per_group] @ members)
        right += wanted[channel] @ members
    free = (np.diag(left) > 0) & (centroids.values != 0)
    values = centroids.values.copy()
    if free.any():
        kept = left[np.ix_(free, free)]
        stay = 1e-6 * np.trace(kept) / len(kept)  # where data leaves a direction open
        values[free] = np.linalg.solve(kept + stay * np.eye(len(kept)), right[free] + stay * values[free])
    return values


def rounded(centroids: Centroids, whole: bool) -> Centroids:
    """The largest centroid at 127 and all of them whole, if so asked; scales of few digits."""
    largest = np.abs(centroids.values).max()
    if not whole or largest == 0:
        return replace(centroids, scale=rounded_scale(centroids.scale))
    values = np.rint(centroids.values * (LIMIT / largest)) + 0.0  # no -0.0
    return Centroids(values, rounded_scale(centroids.scale * (largest / LIMIT)))


def rounded_scale(scale: np.ndarray) -> np.ndarray:
    """The scale, rounded to DIGITS decimal digits and then to float32."""
    return np.array([np.float32(f"{s:.{DIGITS - 1}e}") for s in scale], np.float64)
