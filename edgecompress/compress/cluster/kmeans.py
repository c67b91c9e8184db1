"""k-means of weighted numbers: optimal, or Lloyd's iteration from one of three starts.

Starts as in S. Han et al., "Deep Compression" (ICLR 2016), section 3.2. The optimum in one dimension by
dynamic programming as in H. Wang and M. Song, "Ckmeans.1d.dp" (The R Journal 3/2, 2011), whose inner minimum
moves monotonically (A. Gronlund et al., arXiv:1701.07204), so divide and conquer finds it in n log n steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

MOST_POINTS = 1 << 16  # more distinct values are first rounded to this many steps of their range
LLOYD_ROUNDS = 100


def kmeans(
    values: np.ndarray, weights: np.ndarray, clusters: int, *, init: str = "optimal", seed: int = 0
) -> np.ndarray:
    """Ascending float64 centroids [at most `clusters`] with a small sum of weights * (value - nearest)^2.

    values, weights: [n], n > 0; weights >= 0, not all zero. init: a key of METHODS.
    Values that are zero are pruned weights: they get a centroid of their own, and take no part in the others.
    """
    values, weights = np.asarray(values, np.float64).ravel(), np.asarray(weights, np.float64).ravel()
    pruned = values == 0
    if pruned.any():
        if clusters == 1 or pruned.all():
            return np.zeros(1)
        kept = kmeans(values[~pruned], weights[~pruned], clusters - 1, init=init, seed=seed)
        return np.unique(np.append(kept, 0.0))
    points, masses = collapsed(values, weights)
    if len(points) <= clusters:
        return points
    return METHODS[init](points, masses, clusters, np.random.default_rng(seed))


def collapsed(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, ascending, and the weight of each: int8 weights are 255 points at most."""
    points, index = np.unique(values, return_inverse=True)
    if len(points) > MOST_POINTS:
        step = (points[-1] - points[0]) / (MOST_POINTS - 1)
        steps = np.rint((values - points[0]) / step)
        points, index = np.unique(steps * step + points[0], return_inverse=True)
    masses = np.bincount(index.ravel(), weights, len(points))
    used = masses > 0
    return (points[used], masses[used]) if used.any() else (points, np.ones(len(points)))


Method = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


def optimal(points: np.ndarray, masses: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """The global optimum."""
    centred = points - np.average(points, weights=masses)  # prefix sums of squares lose digits otherwise
    mass, first, second = (np.concatenate([[0.0], np.cumsum(masses * centred**power)]) for power in range(3))
    starts = _partition(mass, first, second, clusters)
    ends = np.append(starts[1:], len(points))
    return np.array([np.average(points[a:b], weights=masses[a:b]) for a, b in zip(starts, ends, strict=True)])


def linear(points: np.ndarray, masses: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Starts from evenly spaced values, which keeps the few large weights near a centroid."""
    return lloyd(points, masses, np.linspace(points[0], points[-1], clusters))


def density(points: np.ndarray, masses: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Starts from evenly spaced quantiles."""
    below = (np.cumsum(masses) - masses / 2) / masses.sum()
    return lloyd(points, masses, np.interp((np.arange(clusters) + 0.5) / clusters, below, points))


def random(points: np.ndarray, masses: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Starts from values drawn at random, by weight (Forgy)."""
    chosen = rng.choice(len(points), clusters, replace=False, p=masses / masses.sum())
    return lloyd(points, masses, points[np.sort(chosen)])


METHODS: dict[str, Method] = {"optimal": optimal, "linear": linear, "density": density, "random": random}


def lloyd(points: np.ndarray, masses: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Lloyd's iteration (S. Lloyd, 1982) on ascending points; a centroid that loses all points stays put."""
    for _ in range(LLOYD_ROUNDS):
        index = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, points)
        mass = np.bincount(index, masses, len(centroids))
        mean = np.bincount(index, masses * points, len(centroids)) / np.where(mass > 0, mass, 1.0)
        moved = np.sort(np.where(mass > 0, mean, centroids))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


@njit(cache=True)
def _partition(mass: np.ndarray, first: np.ndarray, second: np.ndarray, clusters: int) -> np.ndarray:
    """Where each of the best `clusters` intervals of n points starts: int64 [clusters].

    mass, first, second: prefix sums [n + 1] of weights, weights * value, weights * value^2.
    """
    n = mass.size - 1
    error = np.zeros(n + 1)  # of the best partition of the first j points into the intervals so far
    for j in range(1, n + 1):
        error[j] = second[j] - first[j] * first[j] / mass[j]
    came_from = np.zeros((clusters, n + 1), np.int32)
    jobs = np.empty((64, 4), np.int64)  # j in low..high, whose last interval starts in left..right
    for interval in range(1, clusters):
        before = error.copy()
        filled = 1
        jobs[0] = (interval + 1, n, interval, n - 1)
        while filled:
            filled -= 1
            low, high, left, right = jobs[filled]
            if low > high:
                continue
            j = (low + high) // 2
            best, start = np.inf, left
            for i in range(left, min(right, j - 1) + 1):
                total = first[j] - first[i]
                cost = before[i] + second[j] - second[i] - total * total / (mass[j] - mass[i])
                if cost < best:
                    best, start = cost, i
            error[j], came_from[interval, j] = best, start
            jobs[filled] = (low, j - 1, left, start)
            jobs[filled + 1] = (j + 1, high, start, right)
            filled += 2
    starts = np.zeros(clusters, np.int64)
    j = n
    for interval in range(clusters - 1, 0, -1):
        j = came_from[interval, j]
        starts[interval] = j
    return starts
