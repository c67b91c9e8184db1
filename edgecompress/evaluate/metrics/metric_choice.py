"""The metric that fits an output and its labels, when none is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.evaluate.metrics.classes import are_binary, is_one_hot, is_single_score, threshold


@dataclass(frozen=True)
class Choice:
    """metric: its name. why: what was seen, for the report; "" for scores of classes."""

    metric: str
    why: str = ""


def choose(output: np.ndarray, labels: np.ndarray) -> Choice:
    """The metric for one output.

    One score for each sample and labels 0 and 1: top1, at 0.5. Labels 0 and 1 for each of several scores: exact, or
    top1 where every sample has a single 1. Other integers: top1; but r2 for one number for each sample. Other numbers:
    r2.
    """
    whole = labels.dtype.kind in "uib"
    if is_single_score(output) and labels.size == len(output):
        if are_binary(labels):
            return Choice("top1", f"labels are 0 and 1 for one score, which means 1 above {threshold(output):g}")
        return Choice("r2", "the output is one number for each sample")
    if is_one_hot(output, labels):
        return Choice("top1", "labels have a single 1 in each row")
    if output.dtype.kind == "f" and output.shape == labels.shape and output.ndim > 1 and labels.size:
        if are_binary(labels):
            return Choice("exact", "labels are 0 and 1 for each score")
        return Choice("r2", "labels have the output's shape")
    if not whole and output.size == labels.size:
        return Choice("r2", "labels are numbers, not classes")
    return Choice("top1")
