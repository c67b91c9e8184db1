"""Metrics of a model's outputs against labels or against another model's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.errors import InputError
from edgecompress.evaluate.metrics.boxes import centred_map50, corner_map50
from edgecompress.evaluate.metrics.classes import (
    Predicted,
    is_classifier,
    macro_f1,
    mean_iou,
    predicted_classes,
    predictions,
    top1,
    top5,
)
from edgecompress.evaluate.metrics.metric import Metric
from edgecompress.evaluate.metrics.metric_choice import Choice, choose
from edgecompress.evaluate.metrics.regression import mean_absolute_error, r2
from edgecompress.evaluate.metrics.several_labels import exact_match, micro_f1
from edgecompress.evaluate.metrics.similarity import Paired, SameClasses, max_abs_error, paired, same_classes, snr_db
from edgecompress.support.user_code import is_function_spec, load_function

__all__ = [
    "AUTO", "METRICS", "Choice", "Metric", "Paired", "Predicted", "SameClasses", "choose", "gain", "is_classifier",
    "load_metric", "max_abs_error", "paired", "predicted_classes", "predictions", "reads_several", "same_classes",
    "snr_db", "top1",
]  # fmt: skip

AUTO = "auto"  # the metric that fits output and labels
METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1", top1),
        Metric("top5", top5),
        Metric("f1", macro_f1),
        Metric("exact", exact_match),
        Metric("micro_f1", micro_f1),
        Metric("r2", r2),
        Metric("mae", mean_absolute_error, lower_is_better=True),
        Metric("miou", mean_iou),
        Metric("map50", centred_map50),
        Metric("map50_corners", corner_map50),
    )
}


def load_metric(name: str) -> Metric:
    """The metric of that name, "auto", or the function that `file.py:function` names: (outputs, labels) -> float, where
    higher is better.

    The function raises InputError when it returns anything but a finite number. Raises InputError when there is no such
    metric.
    """
    if name == AUTO:
        return Metric(AUTO, _automatic)
    if name in METRICS:
        return METRICS[name]
    if not is_function_spec(name):
        expected = ", ".join(map(repr, (AUTO, *METRICS)))
        raise InputError(f"metric {name!r}: expected {expected} or 'file.py:function'")
    function = load_function(name)

    def score(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
        value = function(list(outputs), labels)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} returned {value!r}; expected a number") from error
        if not np.isfinite(number):
            raise InputError(f"{name} returned {number}; expected a finite number")
        return number

    return Metric(name, score)


def reads_several(metric: str) -> bool:
    """Whether the metric of that name may read outputs behind its own, as detectors' and functions of the user's do."""
    return metric.startswith("map50") or metric not in METRICS


def gain(metric: str, value: float) -> float:
    """The value of the metric of that name, or its negative, so that more is better."""
    return METRICS[metric].gain(value) if metric in METRICS else value


def _automatic(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    return METRICS[choose(outputs[0], labels).metric](outputs, labels)
