"""Metrics of outputs that answer several questions at once: [n, labels], each yes or no."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.errors import InputError
from edgecompress.evaluate.metrics.classes import are_binary, threshold


def exact_match(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The percentage of samples for which all answers are right. outputs[0]: probabilities (logits) [n, labels], yes
    above 0.5 (0). labels: 0 and 1, of the same shape. Raises InputError when they don't fit.
    """
    answers, expected = _answers(outputs[0], labels, "exact")
    return 100.0 * float(np.mean((answers == expected).all(axis=1)))


def micro_f1(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """F1 = 2 tp / (2 tp + fp + fn) over all answers, in percent; 0 where nothing is and nothing should be yes.

    outputs, labels: as for exact_match.
    """
    answers, expected = _answers(outputs[0], labels, "micro_f1")
    total = float(answers.sum() + expected.sum())
    return 200.0 * float((answers & expected).sum()) / total if total else 0.0


def _answers(output: np.ndarray, labels: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    if output.size != labels.size or len(output) != len(labels) or not are_binary(labels):
        raise InputError(
            f"{metric} needs labels 0 and 1 of the output's shape {list(output.shape)}; found labels "
            f"{labels.dtype} {list(labels.shape)} from {labels.min(initial=0):g} to {labels.max(initial=0):g}"
        )
    rows = len(output), -1
    return (output > threshold(output)).reshape(rows), (labels == 1).reshape(rows)
