"""What each output of a model is to a loss: scores of classes, probabilities or numbers, and how much it varies."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.errors import InputError
from edgecompress.evaluate.metrics.classes import VOID, are_binary, is_one_hot, is_single_score, threshold
from edgecompress.evaluate.quality import slices
from edgecompress.graph.nodes import argument
from edgecompress.recipe import Distill
from edgecompress.support.user_code import is_function_spec
from edgecompress.train.module.ranking import ranked
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.train_data import TrainData

Form = Literal["logits", "shares", "probabilities", "numbers"]
Task = Literal["cross-entropy", "binary-cross-entropy", "mse"]

SAMPLES, BATCH = 1024, 64  # of the data, that outputs are looked at on
ELEMENTS = 1 << 24  # of the outputs: with as many, fewer samples will do
CONSTANT = 1e-6  # of the mean square: an output that varies less is the same for all samples
MOVES = ("Reshape", "Transpose", "Slice", "Cast", "Identity")  # what leaves values as they are


@dataclass(frozen=True, eq=False)
class OutputKind:
    """One output of a model, as a module with `logits=True` gives it.

    form: "logits" of classes along `axis`; "shares", probabilities that share 1 along `axis`; "probabilities", each
    between 0 and 1; or "numbers". spread: of numbers and probabilities, the variance of the model's own values over
    training data, in a shape that goes with [n, ...]: one for each quantity that the output holds; of classes, the
    divergence of the model's own from what it says on average. The distance of an output that knows nothing but the
    mean, so that outputs of different kinds count alike. activation: what the model itself makes of logits, "Softmax"
    or "LogSoftmax"; "" for the rest. task: the loss against labels; None without any.
    """

    name: str
    form: Form
    spread: Tensor
    axis: int = 1
    activation: str = ""
    task: Task | None = None


def output_kinds(
    model: ir.Model,
    data: TrainData,
    loss: str = "auto",
    module: TorchModel | None = None,
    temperature: float = Distill.model_fields["temperature"].default,
    classes: Collection[str] = (),
) -> tuple[OutputKind | None, ...]:
    """Of each output of a canonical model, from its graph, its values on the data, and the data's labels; None for one
    that nothing can be learned from, such as a number of boxes.

    loss: as [train] says, of the first output: "cross-entropy" means that it holds scores of classes, also without
    labels. module: of the model, with `logits=True`. temperature: that classes are compared at. classes: names of
    outputs that evaluation data says are scores of classes. A float output of unknown meaning counts as numbers: the
    squared error of logits teaches a classifier too (Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?), if not
    quite as well (tests/bench/imitation.py), and divergence teaches nothing else.
    Raises InputError for labels that don't fit, and when nothing can be learned from any output.
    """
    values = _values(module or TorchModel(model, logits=True), data)
    labels = data.labels_of([str(v.name) for v in model.graph.outputs])
    kinds: list[OutputKind | None] = []
    for place, (value, output) in enumerate(zip(model.graph.outputs, values, strict=True)):
        asked = "auto" if place or is_function_spec(loss) else loss
        if labels[place] is None and value.name in classes:
            asked = "cross-entropy"
        kind = None if output.dtype.kind != "f" else _kind(value, output, labels[place], asked)
        if kind is not None and kind.form in ("logits", "shares"):
            kind = replace(kind, spread=_divergence(kind, output, temperature))
        kinds.append(kind)
    if not any(kinds):
        names = ", ".join(f"{v.name!r} ({v.dtype})" for v in model.graph.outputs)
        raise InputError(f"no output of the model can be trained, as none holds real numbers: {names}")
    return tuple(kinds)


def _values(module: TorchModel, data: TrainData) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = []
    count, elements = min(SAMPLES, len(data)), 0
    with torch.no_grad():
        for first in range(0, count, BATCH):
            if elements > ELEMENTS:
                break
            batch = data.batch(np.arange(first, min(first + BATCH, count)))
            parts.append([y.numpy() for y in module.eval()(*batch.inputs)])
            elements += sum(y.size for y in parts[-1])
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _kind(value: ir.Value, output: np.ndarray, labels: np.ndarray | None, asked: str) -> OutputKind:
    form, axis = _form(value, output)
    name, node = str(value.name), value.producer()
    activation = node.op_type if form == "logits" and node is not None and node.op_type != "ArgMax" else ""
    kind = OutputKind(name, form, _spread(name, output), axis, activation)
    if labels is not None:
        task = _task(kind, output, labels) if asked == "auto" else _asked(asked, output)
        kind = replace(kind, task=task)
        if task == "cross-entropy" and form == "numbers":
            kind = replace(kind, form="logits", axis=_class_axis(output, labels))
        _require_fit(kind, output, labels)
    elif asked == "cross-entropy" and form == "numbers" and not is_single_score(output):
        kind = replace(kind, form="logits")
    return kind


def _form(value: ir.Value, output: np.ndarray) -> tuple[Form, int]:
    """The form, and the axis of classes, as far as the graph and the values say."""
    scores = ranked(value)
    if scores.axis is not None:
        return "logits", scores.axis % output.ndim
    if _is_squashed(value):
        return "probabilities", 1
    if output.size and output.min() >= 0:
        for axis in range(1, output.ndim):
            if output.shape[axis] > 1 and np.allclose(output.sum(axis=axis), 1, rtol=0, atol=1e-3):
                return "shares", axis
    return "numbers", 1


def _task(kind: OutputKind, output: np.ndarray, labels: np.ndarray) -> Task:
    """The loss that fits output and labels, as `evaluate.metrics.choose` finds the metric."""
    whole, classes = labels.dtype.kind != "f", kind.form in ("logits", "shares")
    if is_single_score(output) and labels.size == len(labels):
        return _of_single_score(kind, output, labels) if are_binary(labels) else "mse"
    if labels.shape[1:] == output.shape[1:]:
        if kind.form != "probabilities" and (is_one_hot(output, labels[: len(output)]) or classes):
            return "cross-entropy" if _are_shares(labels, kind.axis) else "mse"
        return "binary-cross-entropy" if are_binary(labels) and output.ndim > 1 else "mse"
    if not whole:
        return "mse"
    return "binary-cross-entropy" if kind.form == "probabilities" else "cross-entropy"


def _are_shares(labels: np.ndarray, axis: int) -> bool:
    """Whether labels of the output's shape are probabilities of classes, such as a single 1."""
    return bool(labels.min() >= 0 and np.allclose(labels.sum(axis=axis), 1, rtol=0, atol=1e-3))


def _of_single_score(kind: OutputKind, output: np.ndarray, labels: np.ndarray) -> Task:
    """Labels 0 and 1 for one number: it is a probability, a logit, or was trained towards 0 and 1 by its square."""
    if kind.form == "probabilities":
        return "binary-cross-entropy"
    if threshold(output):
        return "mse"
    scores, truth = output.reshape(-1), labels.reshape(-1)[: len(output)] > 0.5
    right = [np.mean((scores > limit) == truth) for limit in (0.0, 0.5)]
    return "binary-cross-entropy" if right[0] >= right[1] else "mse"


def _asked(name: str, output: np.ndarray) -> Task:
    if name == "cross-entropy" and is_single_score(output):
        return "binary-cross-entropy"
    names: Mapping[str, Task] = {
        "cross-entropy": "cross-entropy",
        "binary-cross-entropy": "binary-cross-entropy",
        "mse": "mse",
    }
    if name not in names:
        raise InputError(f"loss {name!r}: expected auto, {', '.join(map(repr, names))} or 'file.py:function'")
    return names[name]


def _class_axis(output: np.ndarray, labels: np.ndarray) -> int:
    """1, or the last axis where only that leaves the shape of the labels."""
    last = output.ndim - 1
    return last if labels.shape[1:] == output.shape[1:last] != output.shape[2:] else 1


def _require_fit(kind: OutputKind, output: np.ndarray, labels: np.ndarray) -> None:
    """Raises InputError for labels that the task can't be computed with."""
    name, found = f"training labels of output {kind.name!r}", f"found {labels.dtype} {list(labels.shape[1:])}"
    sample, size = list(output.shape[1:]), math.prod(labels.shape[1:])
    count = output.shape[kind.axis] if output.ndim > 1 else 1
    whole, same = labels.dtype.kind != "f", labels.shape[1:] == output.shape[1:]
    are_classes = whole and not same and count > 1 and size * count == math.prod(sample)
    if kind.task == "cross-entropy" and not are_classes and not same:
        raise InputError(f"{name}: expected one integer class for each position of {sample}; {found}")
    if kind.task == "mse" or not are_classes:
        if size != math.prod(sample):
            raise InputError(f"{name}: expected numbers of shape {sample}; {found}")
        return
    outside = labels[(labels < 0) | (labels >= count)]
    is_void = size > 1 and np.isin(outside, VOID).all()
    if outside.size and not is_void:
        raise InputError(
            f"{name}: expected 0 to {count - 1}, as the output has {count} classes; found {labels.min()} to "
            f"{labels.max()}"
        )


def _is_squashed(value: ir.Value) -> bool:
    """Whether a Sigmoid made the values."""
    node = value.producer()
    while node is not None and node.op_type in MOVES:
        node = argument(node, 0).producer()
    return node is not None and node.op_type == "Sigmoid"


def _spread(name: str, output: np.ndarray) -> Tensor:
    """The mean over positions of their variances over samples, for each quantity that the output holds.

    A quantity that is the same for all samples has its mean square in place of the variance.
    """
    parts = slices(name, output)
    values = output.astype(np.float64)
    variance, square = values.var(axis=0), np.square(values).mean(axis=0)
    axis = parts.axis
    if axis is None or axis == 0:
        return torch.tensor(_nonzero(float(variance.mean()), float(square.mean())), dtype=torch.float32)
    rest = tuple(i for i in range(variance.ndim) if i != axis - 1)
    line = np.ones(output.shape[axis])
    for part in parts.parts:
        at = list(part.positions)
        line[at] = _nonzero(float(variance.mean(axis=rest)[at].mean()), float(square.mean(axis=rest)[at].mean()))
    return torch.from_numpy(line.astype(np.float32)).reshape([-1 if i == axis else 1 for i in range(output.ndim)])


def _divergence(kind: OutputKind, output: np.ndarray, temperature: float) -> Tensor:
    """T^2 times the mean divergence of what the model says of each sample from what it says on average."""
    scores = torch.from_numpy(output)
    scores = scores.clamp(min=1e-6).log() if kind.form == "shares" else scores
    soft = (scores.double().movedim(kind.axis, -1) / temperature).log_softmax(-1)
    mean = soft.exp().mean(0, keepdim=True)
    divergence = temperature**2 * (soft.exp() * (soft - mean.clamp(min=1e-300).log())).sum(-1).mean()
    return (divergence if divergence > CONSTANT else torch.ones_like(divergence)).float()


def _nonzero(variance: float, square: float) -> float:
    return variance if variance > CONSTANT * square else square or 1.0
