"""Metrics of a model's outputs against labels or against another model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.errors import InputError
from edgecompress.support.user_code import is_function_spec, load_function

Metric = Callable[[Sequence[np.ndarray], np.ndarray], float]


def predictions(scores: np.ndarray) -> np.ndarray:
    """The class with the highest score, int64 [n, positions], from scores [n, classes, ...]; the first among equals.

    Integer outputs are taken as classes.
    """
    classes = scores if scores.dtype.kind in "uib" else scores.argmax(axis=1)
    return classes.reshape(len(scores), -1).astype(np.int64)


def is_classifier(outputs: Sequence[np.ndarray]) -> bool:
    """Whether the first output looks like class scores: float [n, classes] with two classes or more."""
    return outputs[0].dtype.kind == "f" and outputs[0].ndim == 2 and outputs[0].shape[1] > 1


def top1(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The percentage of labels to which the first output, [n, classes, ...], gives the highest score.

    Raises InputError when labels aren't integers, or don't match the output's shape.
    """
    if outputs[0].ndim < 2 and outputs[0].dtype.kind == "f":
        raise InputError(f"top1 needs scores [n, classes]; the first output is {list(outputs[0].shape)}")
    predicted = predictions(outputs[0])
    if labels.dtype.kind not in "uib" or labels.size != predicted.size:
        raise InputError(
            f"top1 needs an integer class for each of {predicted.size} predictions; found labels "
            f"{labels.dtype} {list(labels.shape)}; give another metric in the recipe: [evaluate] metric"
        )
    return 100.0 * float(np.mean(predicted == labels.reshape(predicted.shape)))


@dataclass(frozen=True)
class Paired:
    """Samples on which one of two models is right more often than the other: lost by the second, and gained."""

    lost: int
    gained: int

    def __str__(self) -> str:
        return f"it is wrong on {self.lost} samples more, and right on {self.gained} more"


def paired(outputs: np.ndarray, others: np.ndarray, labels: np.ndarray) -> Paired:
    """Compares the predictions of a second model's output with the first one's, sample by sample, as `top1` counts."""
    first, second = ((p == labels.reshape(p.shape)).sum(axis=1) for p in (predictions(outputs), predictions(others)))
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


METRICS: dict[str, Metric] = {"top1": top1}


def load_metric(name: str) -> Metric:
    """The metric of that name, or the function that `file.py:function` names: (outputs, labels) -> float, where higher
    is better.

    The function raises InputError when it returns anything but a finite number. Raises InputError when there is no such
    metric.
    """
    if name in METRICS:
        return METRICS[name]
    if not is_function_spec(name):
        raise InputError(f"metric {name!r}: expected {', '.join(map(repr, METRICS))} or 'file.py:function'")
    function = load_function(name)

    def metric(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
        value = function(list(outputs), labels)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} returned {value!r}; expected a number") from error
        if not np.isfinite(number):
            raise InputError(f"{name} returned {number}; expected a finite number")
        return number

    return metric
