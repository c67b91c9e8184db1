"""k-means against enumeration of all partitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.compress.cluster.kmeans import METHODS, MOST_POINTS, kmeans, lloyd

numbers = st.integers(-1000, 1000).filter(bool).map(lambda n: n / 8)
weighted = st.lists(st.tuples(numbers, st.integers(1, 50)), min_size=1, max_size=9)


def error(values: np.ndarray, weights: np.ndarray, centroids: np.ndarray) -> float:
    return float((weights * np.square(values[:, None] - centroids).min(axis=1)).sum())


def least_error(values: np.ndarray, weights: np.ndarray, clusters: int) -> float:
    """Over all ways to cut the ordered values into at most `clusters` intervals (an optimal one is of this kind)."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    best = np.inf
    for count in range(1, min(clusters, len(values)) + 1):
        for cuts in combinations(range(1, len(values)), count - 1):
            parts = zip((0, *cuts), (*cuts, len(values)), strict=True)
            means = [np.average(values[a:b], weights=weights[a:b]) for a, b in parts]
            best = min(best, error(values, weights, np.array(means)))
    return best


@settings(deadline=None)
@given(weighted, st.integers(1, 5))
def test_optimal_is_the_best_of_all_partitions(points: list[tuple[float, int]], clusters: int) -> None:
    values, weights = np.array(points, np.float64).T
    found = kmeans(values, weights, clusters)
    assert len(found) <= clusters and np.array_equal(found, np.unique(found))
    assert error(values, weights, found) == pytest.approx(least_error(values, weights, clusters), abs=1e-6)


@settings(deadline=None)
@given(weighted, st.integers(1, 5), st.sampled_from(sorted(METHODS)), st.integers(0, 9))
def test_every_start_ends_where_lloyd_stays(
    points: list[tuple[float, int]], clusters: int, init: str, seed: int
) -> None:
    values, weights = np.array(points, np.float64).T
    found = kmeans(values, weights, clusters, init=init, seed=seed)
    assert error(values, weights, found) >= least_error(values, weights, clusters) - 1e-6
    distinct, index = np.unique(values, return_inverse=True)
    again = lloyd(distinct, np.bincount(index, weights), found)
    assert error(values, weights, again) == pytest.approx(error(values, weights, found), abs=1e-6)


@settings(deadline=None)
@given(weighted, st.integers(1, 5), st.sampled_from(sorted(METHODS)), st.integers(1, 9))
def test_pruned_weights_keep_zero_for_themselves(
    points: list[tuple[float, int]], clusters: int, init: str, zeros: int
) -> None:
    values, weights = np.array(points, np.float64).T
    padded = np.append(values, np.zeros(zeros)), np.append(weights, np.full(zeros, 1000))
    found = kmeans(*padded, clusters, init=init)
    assert len(found) <= clusters and 0.0 in found
    if clusters > 1:
        others = kmeans(values, weights, clusters - 1, init=init)
        np.testing.assert_array_equal(found, np.unique(np.append(others, 0.0)))


def test_starts_are_what_they_are_called() -> None:
    values = np.concatenate([np.linspace(-0.01, 0.01, 1001) + 1, [9.0, 10.0]])
    ones = np.ones(len(values))
    by_density, by_value = kmeans(values, ones, 4, init="density"), kmeans(values, ones, 4, init="linear")
    assert (by_density < 2).sum() > (by_value < 2).sum()  # quantiles lie where values are many
    assert len(np.unique([kmeans(values, ones, 4, init="random", seed=s) for s in range(8)], axis=0)) > 1


def test_many_int8_weights_are_few_points() -> None:
    rng = np.random.default_rng(0)
    weights = np.rint(rng.normal(0, 40, 1_000_000)).clip(-127, 127)
    found = kmeans(weights, np.ones(weights.size), 16)
    best = kmeans(*np.unique(weights[weights != 0], return_counts=True), 15)
    np.testing.assert_allclose(found, np.unique(np.append(best, 0.0)))


def test_more_points_than_fit_are_rounded_first() -> None:
    values = np.random.default_rng(1).normal(size=4 * MOST_POINTS)
    found = kmeans(values, np.ones(values.size), 2)
    np.testing.assert_allclose(found, [-np.sqrt(2 / np.pi), np.sqrt(2 / np.pi)], atol=0.01)  # Max (1960), table I
