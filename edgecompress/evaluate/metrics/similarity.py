"""How near a model's outputs are to another model's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.evaluate.metrics.classes import predictions, right_predictions


@dataclass(frozen=True)
class Paired:
    """Samples on which one of two models is right more often than the other: lost by the second, and gained."""

    lost: int
    gained: int

    def __str__(self) -> str:
        return f"it is wrong on {self.lost} samples more, and right on {self.gained} more"


def paired(outputs: np.ndarray, others: np.ndarray, labels: np.ndarray) -> Paired:
    """Compares the predictions of a second model's output with the first one's, sample by sample, as `top1` counts."""
    first, second = right_predictions(outputs, labels), right_predictions(others, labels)
    return Paired(int(np.sum(second < first)), int(np.sum(second > first)))


@dataclass(frozen=True)
class SameClasses:
    """How often two models predict the same class. percent: of all predictions. kappa: beyond what their frequencies
    alone make equal (Cohen 1960); 0 where both always predict one class, which says nothing."""

    percent: float
    kappa: float


def same_classes(scores: np.ndarray, others: np.ndarray) -> SameClasses:
    """Compares the predictions from scores [n, classes, ...], or from integer classes of any shape."""
    a, b = predictions(scores).reshape(-1), predictions(others).reshape(-1)
    equal = float(np.mean(a == b)) if a.size else 1.0
    _, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    shares = [np.bincount(part, minlength=numbers.max(initial=0) + 1) / max(a.size, 1) for part in np.split(numbers, 2)]
    by_chance = float(shares[0] @ shares[1])
    return SameClasses(100.0 * equal, (equal - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0)


def snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, 10 log10(sum reference^2 / sum (reference - other)^2); inf when equal.

    Sums are in float64, over blocks, so that no copy of a large output is made.
    """
    signal = noise = 0.0
    a, b = reference.reshape(-1), other.reshape(-1)
    for start in range(0, a.size, 1 << 20):
        x = a[start : start + (1 << 20)].astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity - infinity: the ratio is NaN then
            signal += float(np.sum(x * x))
            noise += float(np.sum((x - b[start : start + (1 << 20)]) ** 2))
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def max_abs_error(reference: np.ndarray, other: np.ndarray) -> float:
    """The largest |reference - other|."""
    return float(np.max(np.abs(reference.astype(np.float64) - other), initial=0.0))
