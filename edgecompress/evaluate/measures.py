"""What accuracy is measured by: a metric and labels, for one output or for each that has its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.metrics import AUTO, METRICS, Metric, choose, load_metric


@dataclass(frozen=True, eq=False)
class Measure:
    """output: the name of the output that the metric is of; place: its index. why: what the metric was chosen for, ""
    where the recipe names it. The metric gets that output first, and those behind it.
    """

    output: str
    place: int
    metric: Metric
    labels: np.ndarray
    why: str = ""

    def __call__(self, outputs: Sequence[np.ndarray]) -> float:
        """The score of the first samples, as many as `outputs` holds."""
        rest = outputs[self.place :]
        return self.metric(rest, self.labels[: len(rest[0])])

    def point(self, reference_value: float) -> float:
        """How much of the metric is one point: one percent. For an error, that of the labels' mean absolute deviation;
        for a function of the user's, which may have any unit, that of the float model's value. Never 0.
        """
        if self.metric.lower_is_better:
            whole = float(np.mean(np.abs(self.labels - self.labels.mean(axis=0))))
        else:
            whole = 100.0 if self.metric.name in METRICS else abs(reference_value)
        return whole / 100 or 1.0


@dataclass(frozen=True)
class Score:
    """One output's score, and the float model's on the same samples. drop: how much worse it is."""

    measure: Measure
    value: float
    reference_value: float

    @property
    def drop(self) -> float:
        """How much worse it is; negative when it is better."""
        return self.measure.metric.lost(self.reference_value, self.value)


def measures(names: Sequence[str], outputs: Sequence[np.ndarray], data: Dataset, asked: Metrics) -> tuple[Measure, ...]:
    """How a model with outputs of these names is measured; empty without labels.

    outputs: the float model's, from which "auto" chooses. asked: the metric of the first output, or of each output by
    its name. Raises InputError for an output that the model lacks, or that has no labels.
    """
    labels = {names[0]: data.labels} if data.labels is not None else {}
    labels |= data.output_labels
    if isinstance(asked, str):
        own = list(labels) if asked == AUTO else names[:1]
        asked = dict.fromkeys(own, asked)
        if not labels:
            return ()
    result = []
    for name, metric in asked.items():
        if name not in names:
            raise InputError(f"[evaluate] metric: the model has no output {name!r}; its outputs are {list(names)}")
        if name not in labels:
            if not labels:
                return ()
            raise InputError(f"{data.source}: no labels for output {name!r}; give an array of that name")
        result.append(_measure(name, names.index(name), outputs, labels[name], metric))
    return tuple(result)


Metrics = str | Mapping[str, str]  # of the first output, or of each output by its name


def described(found: Sequence[Measure]) -> str:
    """The names of the metrics, each with its output where there are several."""
    if len(found) == 1:
        return found[0].metric.name
    return ", ".join(f"{measure.output}: {measure.metric.name}" for measure in found)


def worst(found: Sequence[Measure], expected: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Score:
    """The score that lost most points against the float model's outputs `expected`, on the same samples."""
    scores = [Score(measure, measure(outputs), measure(expected)) for measure in found]
    return max(scores, key=lambda score: score.drop / score.measure.point(score.reference_value))


def _measure(name: str, place: int, outputs: Sequence[np.ndarray], labels: np.ndarray, metric: str) -> Measure:
    if metric != AUTO:
        return Measure(name, place, load_metric(metric), labels)
    choice = choose(outputs[place], labels)
    return Measure(name, place, load_metric(choice.metric), labels, choice.why)
