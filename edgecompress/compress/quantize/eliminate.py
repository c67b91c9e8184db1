"""Replaces a weight's columns one after the other, so that those behind make up for the errors of those before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 128  # columns whose errors are passed on together

# (all columns [channels, k], those up to j as they have become by now; j) -> what takes the place of column j
Replace = Callable[[np.ndarray, int], np.ndarray]


def eliminate(
    weights: np.ndarray, factors: np.ndarray, replace: Replace, starts: Sequence[int] | None = None
) -> np.ndarray:
    """What takes the place of the columns, float64 [channels, k]: optimal brain surgery in a fixed order, as in GPTQ
    (E. Frantar et al., ICLR 2023, algorithm 1) and SparseGPT (2023, algorithm 1).

    weights: of a layer, [channels, k], each channel by itself, the channels of a group together. factors: for each
    group, upper triangular U with U^T U = E[x x^T]^-1: [groups, k, k]. starts: of blocks of columns, rising from 0:
    within its block, `replace` sees all columns as they are with the errors of those before; by default there are
    BLOCK columns in each.
    """
    left, k = weights.copy(), weights.shape[1]
    grouped = left.reshape(len(factors), -1, k)
    starts = range(0, k, BLOCK) if starts is None else starts
    for start, end in zip(starts, [*starts[1:], k], strict=True):
        errors = np.empty((*grouped.shape[:2], end - start))
        for j in range(start, end):
            replaced = replace(left, j)
            error = (left[:, j] - replaced).reshape(grouped.shape[:2]) / factors[:, j, j, None]
            left[:, j] = replaced
            grouped[:, :, j + 1 : end] -= error[:, :, None] * factors[:, None, j, j + 1 : end]
            errors[:, :, j - start] = error
        grouped[:, :, end:] -= errors @ factors[:, start:end, end:]
    return left
