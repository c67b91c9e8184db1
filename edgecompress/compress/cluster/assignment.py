"""Assigns a centroid to each weight: column by column, each making up for the errors before it, then by descent.

Every choice minimises error + price * length of the index's code (rate and distortion: P. Chou et al.,
"Entropy-constrained vector quantization", IEEE Trans. ASSP 37(1), 1989); a price of 0 gives the nearest.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edgecompress.compress.quantize.moments import inverse_factors


def assign(
    target: np.ndarray,
    hessian: np.ndarray,
    scale: np.ndarray,
    centroids: np.ndarray,
    costs: np.ndarray,
    pruned: np.ndarray,
) -> np.ndarray:
    """Column by column, the error of each pushed to the columns not yet assigned: indices int64 [rows, k].

    E. Frantar et al., "GPTQ" (ICLR 2023): with U^T U = hessian^-1 (U upper triangular), column j's error e
    costs (e / U_jj)^2 in all, after the columns behind it have moved by -e / U_jj * U_j to make up for it.

    target: [rows, k]; hessian: [groups, k, k], positive definite, for rows in equal parts. A weight's values
    are scale [rows] * centroids [n]. costs: of each index [n], its length times the price of a
    bit. pruned: bool [rows, k], weights that
    stay at the centroid nearest to zero.
    """
    factors = inverse_factors(hessian)
    zero = int(np.abs(centroids).argmin())
    return _assign(target, np.ascontiguousarray(factors), scale, centroids, costs, pruned, zero)


def conditional_energy(hessian: np.ndarray) -> np.ndarray:
    """What an error in each column costs once the columns behind it have made up for it: [groups, k]."""
    return np.stack([np.diag(factor) ** -2.0 for factor in inverse_factors(hessian)])


def improve(
    target: np.ndarray,
    hessian: np.ndarray,
    scale: np.ndarray,
    centroids: np.ndarray,
    costs: np.ndarray,
    pruned: np.ndarray,
    indices: np.ndarray,
) -> np.ndarray:
    """Coordinate descent: each weight in turn gets its best index, all others as they are. Never worse.

    Arguments as for `assign`; returns new indices.
    """
    error = scale[:, None] * centroids[indices] - target
    grouped = error.reshape(len(hessian), -1, error.shape[1])
    gradient = (grouped @ hessian).reshape(error.shape)
    indices = indices.copy()
    _improve(np.ascontiguousarray(hessian), scale, centroids, costs, pruned, gradient, indices)
    return indices


@njit(cache=True)
def _assign(
    target: np.ndarray,
    factors: np.ndarray,
    scale: np.ndarray,
    centroids: np.ndarray,
    costs: np.ndarray,
    pruned: np.ndarray,
    zero: int,
) -> np.ndarray:
    rows, k = target.shape
    per_group = rows // factors.shape[0]
    indices = np.empty((rows, k), np.int64)
    wanted = np.empty(k)
    for row in range(rows):
        factor = factors[row // per_group]
        wanted[:] = target[row]
        for j in range(k):
            best = zero
            if not pruned[row, j]:
                least = np.inf
                for i in range(centroids.size):
                    error = (scale[row] * centroids[i] - wanted[j]) / factor[j, j]
                    cost = error * error + costs[i]
                    if cost < least:
                        least, best = cost, i
            indices[row, j] = best
            error = (wanted[j] - scale[row] * centroids[best]) / factor[j, j]
            for i in range(j + 1, k):
                wanted[i] -= error * factor[j, i]
    return indices


@njit(cache=True)
def _improve(
    hessian: np.ndarray,
    scale: np.ndarray,
    centroids: np.ndarray,
    costs: np.ndarray,
    pruned: np.ndarray,
    gradient: np.ndarray,
    indices: np.ndarray,
) -> None:
    """gradient: half of that of the error, kept up to date with every change."""
    rows, k = indices.shape
    per_group = rows // hessian.shape[0]
    for row in range(rows):
        h = hessian[row // per_group]
        slope = gradient[row]
        for j in range(k):
            if pruned[row, j]:
                continue
            old = indices[row, j]
            now = scale[row] * centroids[old]
            wanted = now - slope[j] / h[j, j]
            best, error = old, now - wanted
            least = h[j, j] * error * error + costs[old]
            for i in range(centroids.size):
                error = scale[row] * centroids[i] - wanted
                cost = h[j, j] * error * error + costs[i]
                if cost < least:
                    least, best = cost, i
            if best != old:
                change = scale[row] * centroids[best] - now
                for i in range(k):
                    slope[i] += h[j, i] * change
                indices[row, j] = best
