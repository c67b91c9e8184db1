"""Metrics of outputs that are numbers. Labels may be of any type of numbers, integers too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.errors import InputError


def r2(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """100 (1 - sum (label - output)^2 / sum (label - mean)^2), the mean being that of each column: the share of the
    labels' variance that the first output explains, in percent. Below 0 it does worse than the mean.

    Raises InputError when shapes don't fit, or labels never change.
    """
    predicted, expected = _columns(outputs[0], labels, "r2")
    variance = float(np.sum((expected - expected.mean(axis=0)) ** 2))
    if variance == 0:
        raise InputError("r2 needs labels that differ from sample to sample; all of them are the same")
    return 100.0 * (1.0 - float(np.sum((expected - predicted) ** 2)) / variance)


def mean_absolute_error(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The mean of |label - first output|, in the labels' unit: lower is better. Raises InputError when shapes don't
    fit.
    """
    predicted, expected = _columns(outputs[0], labels, "mae")
    return float(np.mean(np.abs(expected - predicted)))


def _columns(output: np.ndarray, labels: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    if output.size != labels.size or len(output) != len(labels) or not labels.size:
        raise InputError(
            f"{metric} needs a number for each of the first output's {list(output.shape)}; found labels "
            f"{labels.dtype} {list(labels.shape)}"
        )
    rows = len(output), -1
    return output.reshape(rows).astype(np.float64), labels.reshape(rows).astype(np.float64)
