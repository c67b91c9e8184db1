"""Metrics of outputs that choose one class: top1, top5, macro F1 and mean intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.errors import InputError

VOID = (255, -1)  # labels that dense predictions leave out, unless they are classes
OTHERS = "give another metric in the recipe: [evaluate] metric"


@dataclass(frozen=True)
class Predicted:
    """classes, labels: int64 [positions], without void ones. count: of classes; None where the output holds classes."""

    classes: np.ndarray
    labels: np.ndarray
    count: int | None


def predictions(scores: np.ndarray, axis: int = 1) -> np.ndarray:
    """The class with the highest score, int64 [n, positions], from scores with classes along an axis: [n, classes,
    ...] by default; the first among equals.

    Integer outputs are taken as classes.
    """
    classes = scores if scores.dtype.kind in "uib" else scores.argmax(axis=axis)
    return classes.reshape(len(scores), -1).astype(np.int64)


def is_classifier(outputs: Sequence[np.ndarray]) -> bool:
    """Whether the first output looks like class scores: float [n, classes] with two classes or more."""
    return outputs[0].dtype.kind == "f" and outputs[0].ndim == 2 and outputs[0].shape[1] > 1


def is_single_score(output: np.ndarray) -> bool:
    """Whether the output is one number for each sample, [n] or [n, 1, ...]: a score of the second of two classes."""
    return output.dtype.kind == "f" and output.size == len(output)


def are_binary(labels: np.ndarray) -> bool:
    """Whether all labels are 0 or 1."""
    return bool(np.isin(labels, (0, 1)).all())


def threshold(scores: np.ndarray) -> float:
    """From which score on the answer is yes: 0.5 for probabilities; 0 for logits, which leave 0..1."""
    return 0.5 if scores.size == 0 or (scores.min() >= -0.01 and scores.max() <= 1.01) else 0.0


def top1(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The percentage of labels to which the first output, [n, classes, ...] or [n, ..., classes], gives the highest
    score. One score for each sample, [n, 1], means class 1 where it is above 0.5 (a logit: above 0).

    Raises InputError when labels aren't classes of the output, or don't match its shape.
    """
    predicted = predicted_classes(outputs[0], labels, "top1")
    return 100.0 * float(np.mean(predicted.classes == predicted.labels)) if predicted.labels.size else 0.0


def top5(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The percentage of labels to which the first output, [n, classes], gives one of the five highest scores.

    The first among equals goes first, as in top1. Raises InputError as top1 does.
    """
    if not is_classifier(outputs):
        raise InputError(f"top5 needs scores [n, classes]; the first output is {list(outputs[0].shape)}")
    predicted = predicted_classes(outputs[0], labels, "top5")
    first = np.argsort(-outputs[0], axis=1, kind="stable")[:, :5]
    return 100.0 * float(np.mean((first == predicted.labels[:, None]).any(axis=1)))


def macro_f1(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The mean over classes, in percent, of F1 = 2 tp / (2 tp + fp + fn); classes that occur in neither labels nor
    predictions are left out. Raises InputError as top1 does.
    """
    hits, labelled, guessed = _counts(predicted_classes(outputs[0], labels, "f1"))
    return 100.0 * float(np.mean(2 * hits / (labelled + guessed)))


def mean_iou(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The mean over classes, in percent, of intersection over union = tp / (tp + fp + fn), counted over all pixels;
    classes that occur in neither labels nor predictions are left out, as are labels 255 and -1.

    outputs[0]: scores [n, classes, height, width] or [n, height, width, classes]. labels: integers [n, height, width].
    Raises InputError as top1 does.
    """
    hits, labelled, guessed = _counts(predicted_classes(outputs[0], labels, "miou"))
    return 100.0 * float(np.mean(hits / (labelled + guessed - hits)))


def predicted_classes(output: np.ndarray, labels: np.ndarray, metric: str) -> Predicted:
    """What the output predicts, beside the labels. Raises InputError, which names the metric, when they don't fit."""
    if is_single_score(output) and labels.size == len(output) and are_binary(labels):
        above = output.reshape(-1) > threshold(output)
        return Predicted(above.astype(np.int64), labels.reshape(-1).astype(np.int64), 2)
    if output.ndim < 2 and output.dtype.kind == "f":
        raise InputError(f"{metric} needs scores [n, classes]; the first output is {list(output.shape)}")
    if is_one_hot(output, labels):
        labels = labels.argmax(axis=1)
    axis = _class_axis(output, labels)
    predicted = predictions(output, axis)
    if labels.dtype.kind not in "uib" or labels.size != predicted.size:
        raise InputError(
            f"{metric} needs an integer class for each of {predicted.size} predictions; found labels "
            f"{labels.dtype} {list(labels.shape)}; {OTHERS}"
        )
    count = output.shape[axis] if output.dtype.kind == "f" else None
    return _within(Predicted(predicted.reshape(-1), labels.reshape(-1).astype(np.int64), count), output, axis)


def right_predictions(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many predictions of each sample are right, as `top1` counts them: [n]. The labels fit."""
    if is_single_score(output) and are_binary(labels):
        return (output.reshape(-1) > threshold(output)) == labels.reshape(-1)
    if is_one_hot(output, labels):
        labels = labels.argmax(axis=1)
    predicted = predictions(output, _class_axis(output, labels))
    return (predicted == labels.reshape(predicted.shape)).sum(axis=1)


def is_one_hot(output: np.ndarray, labels: np.ndarray) -> bool:
    """Whether labels [n, classes] have a single 1 in each row, for scores of the same shape."""
    same = output.dtype.kind == "f" and output.ndim == 2 and output.shape == labels.shape and output.shape[1] > 1
    return same and are_binary(labels) and bool((labels.sum(axis=1) == 1).all())


def _class_axis(output: np.ndarray, labels: np.ndarray) -> int:
    """Along which axis the classes lie: 1, or the last where only that leaves the shape of the labels."""
    first, last = (output.shape[:axis] + output.shape[axis:][1:] for axis in (1, output.ndim - 1))
    return output.ndim - 1 if labels.shape == last != first else 1


def _within(predicted: Predicted, output: np.ndarray, axis: int) -> Predicted:
    """Without void labels. Raises InputError when other labels are no classes of the output."""
    labels, count = predicted.labels, predicted.count
    if count is None:
        return predicted
    outside = (labels < 0) | (labels >= count)
    if not outside.any():
        return predicted
    void = outside & np.isin(labels, VOID)
    if output.size > len(output) * count and (void == outside).all():
        return Predicted(predicted.classes[~void], labels[~void], count)
    raise InputError(
        f"the labels are {labels.min()} to {labels.max()}, but the output has {count} classes, 0 to {count - 1}"
        + (_shift_hint(predicted, count) or "; check that data and model belong together")
    )


def _shift_hint(predicted: Predicted, count: int) -> str:
    """What to do where all labels are one too high or too low."""
    for shift, advice in ((-1, "subtract 1 from"), (1, "add 1 to")):
        labels = predicted.labels + shift
        if labels.min() >= 0 and labels.max() < count:
            score = 100.0 * float(np.mean(labels == predicted.classes))
            return f"; {advice} the labels: so shifted, top1 is {score:.1f} %"
    return ""


def _counts(predicted: Predicted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each class that occurs: how often it is predicted rightly, how often it is a label, how often predicted."""
    low = min(predicted.labels.min(initial=0), predicted.classes.min(initial=0))
    labels, classes = predicted.labels - low, predicted.classes - low
    length = int(max(labels.max(initial=0), classes.max(initial=0))) + 1
    counted = [np.bincount(x, minlength=length) for x in (labels[labels == classes], labels, classes)]
    occurs = counted[1] + counted[2] > 0
    hits, labelled, guessed = (x[occurs].astype(np.float64) for x in counted)
    return hits, labelled, guessed
