"""Chooses the range that 8 bits cover from a histogram of an activation: one function for each method.

Every function takes a Histogram with at least one value and the recipe's [quantize] section, and returns (low, high).
The caller extends the range to zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.recipe import Quantize

Range = tuple[float, float]
Points = tuple[np.ndarray, np.ndarray]

STEPS = 255  # 256 levels
MSE_COARSE = np.linspace(0.3, 1.0, 36)  # of the exact range: clipping more never pays at 8 bits
MSE_FINE = np.linspace(0.98, 1.02, 17)  # about the best coarse one
KL_LEVELS = 128  # of |x|; the sign is the eighth bit
KL_CANDIDATES = 128
KL_FLOOR = 1e-9  # stands for a probability of zero


def minmax(histogram: Histogram, settings: Quantize) -> Range:
    """The exact extremes."""
    return histogram.minimum, histogram.maximum


def percentile(histogram: Histogram, settings: Quantize) -> Range:
    """The middle `settings.percentile` percent of the values; the rest saturates, half at each end."""
    tail = (100.0 - settings.percentile) / 200.0
    return histogram.quantile(tail), histogram.quantile(1.0 - tail)


def mse(histogram: Histogram, settings: Quantize) -> Range:
    """Least mean squared error of rounding and saturation together, searched over both ends."""
    extremes = np.array([min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)])
    points = histogram.points()
    # Both ends together first: when they are alike, neither pays alone, for the other sets the step.
    best = _least_error(points, MSE_COARSE[:, None] * extremes)
    for end in (0, 1):
        best = _least_error(points, _with_end(best, end, MSE_COARSE * extremes[end]))
    for end in (0, 1):
        best = _least_error(points, np.clip(_with_end(best, end, MSE_FINE * best[end]), *extremes))
    return float(best[0]), float(best[1])


def entropy(histogram: Histogram, settings: Quantize) -> Range:
    """Least Kullback-Leibler divergence between the values and their quantized form.

    S. Migacz, "8-bit inference with TensorRT" (GTC 2017): for thresholds T on |x|, P is the histogram of |x|
    up to T with all that saturates added to its last bin; Q is the histogram up to T reduced to 128 levels.
    Values of one sign have all 256 levels. The bin at zero counts no more than the next one: zero is exact
    at any scale, and the many zeros after a Relu would decide alone.
    """
    counts = _magnitude_counts(histogram)
    counts[0] = min(counts[0], counts[1])
    one_sided = histogram.minimum >= 0 or histogram.maximum <= 0
    levels = 2 * KL_LEVELS if one_sided else KL_LEVELS
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    if used <= levels:
        return histogram.minimum, histogram.maximum
    ends = np.unique(np.linspace(levels, used, KL_CANDIDATES).astype(int))
    limit = ends[np.argmin([kl_divergence(counts, end, levels) for end in ends])] * histogram.width
    return max(histogram.minimum, -limit), min(histogram.maximum, limit)


METHODS: dict[str, Callable[[Histogram, Quantize], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def squared_error(points: Points, ranges: np.ndarray) -> np.ndarray:
    """The sum of squared quantization errors of weighted points for each (low, high): [n, 2] -> float64 [n]."""
    values, counts = points
    low, high = ranges[:, :1], ranges[:, 1:]
    scale = np.where(high > low, (high - low) / STEPS, 1.0)
    zero = np.rint(-low / scale)
    stored = np.clip(np.rint(values / scale) + zero, 0, STEPS)
    return (((stored - zero) * scale - values) ** 2) @ counts


def kl_divergence(counts: np.ndarray, end: int, levels: int) -> float:
    """KL(P || Q), in nats, of a histogram cut at bin `end` against itself in `levels`. counts: [bins]."""
    inside = counts[:end].astype(np.float64)
    p = inside.copy()
    p[-1] += counts[end:].sum()
    level = np.arange(end) * levels // end
    filled = inside > 0
    q = np.bincount(level, inside, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    q = np.where(filled, q[level], 0.0)
    if not q.any():
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    known = p > 0
    return float((p[known] * np.log(p[known] / np.maximum(q[known], KL_FLOOR))).sum())


def _with_end(ends: np.ndarray, end: int, candidates: np.ndarray) -> np.ndarray:
    """Copies of `ends`, [n, 2], in which each of `candidates` [n] replaces one of the two."""
    result = np.repeat(ends[None], len(candidates), axis=0)
    result[:, end] = candidates
    return result


def _least_error(points: Points, candidates: np.ndarray) -> np.ndarray:
    return candidates[np.argmin(squared_error(points, candidates))]


def _magnitude_counts(histogram: Histogram) -> np.ndarray:
    """Counts of |x|: the bins of the negative half folded onto the positive one."""
    index = np.arange(len(histogram.counts)) + histogram.start
    return np.bincount(np.where(index < 0, -1 - index, index), histogram.counts)
