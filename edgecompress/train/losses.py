"""Losses for training: named ones, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F

from edgecompress.errors import InputError
from edgecompress.recipe import Train
from edgecompress.support.present import present
from edgecompress.support.user_code import is_function_spec, load_function
from edgecompress.train.output_kinds import OutputKind, Task, output_kinds
from edgecompress.train.train_data import Batch, TrainData

# (outputs in the model's order, labels or None, the batch that they are of) -> a scalar
Loss = Callable[[Sequence[Tensor], Tensor | None, Batch], Tensor]


@runtime_checkable
class Parted(Protocol):
    """A loss that is the sum of parts, by the names of outputs."""

    def parts(self, outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Mapping[str, Tensor]:
        """The parts, scalars."""
        ...


def cross_entropy(outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
    """Cross-entropy of the first output, logits [n, classes, ...], and labels [n, ...]."""
    labels = present(labels)  # load_loss sees to it
    try:
        return F.cross_entropy(outputs[0], labels)
    except IndexError as error:  # on a CPU; checked only when it fails, as it costs a pass over the labels
        classes = outputs[0].shape[1]
        raise InputError(
            f"training labels: expected 0 to {classes - 1}, as the model has {classes} outputs; "
            f"found {int(labels.min())} to {int(labels.max())}"
        ) from error


def mse(outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
    """Mean squared error of the first output and labels of its shape."""
    labels = present(labels)  # load_loss sees to it
    return F.mse_loss(outputs[0], labels.to(outputs[0].dtype).reshape(outputs[0].shape))


def imitation(kind: OutputKind, output: Tensor, target: Tensor, temperature: float) -> Tensor:
    """The distance of one output from another model's: the divergence of classes, or the squared error of everything
    else over the other model's variance, which is 1 for an output that only knows the mean.
    """
    if kind.form in ("logits", "shares"):
        return softened(_scores(kind, output), _scores(kind, target), temperature, kind.axis)
    spread = kind.spread.to(output.device)
    return ((output.float() - target.float()).square() / spread).mean()


def softened(student: Tensor, teacher: Tensor, temperature: float, axis: int = 1) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over samples and positions; classes lie along an axis.

    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, section 2: T^2 keeps the gradient's size.
    """
    classes = student.shape[axis]
    soft, hard = (y.float().movedim(axis, -1).reshape(-1, classes) / temperature for y in (student, teacher))
    divergence = F.kl_div(soft.log_softmax(-1), hard.log_softmax(-1), reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def label_loss(kind: OutputKind, output: Tensor, labels: Tensor) -> Tensor:
    """The loss of one output against labels, [n, ...], that the kind's task names."""
    return TASKS[present(kind.task)](kind, output, labels)


def _of_classes(kind: OutputKind, output: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the indices of classes, or with probabilities of the output's shape."""
    scores = _scores(kind, output).float().movedim(kind.axis, 1)
    if labels.shape == output.shape:
        return F.cross_entropy(scores, labels.float().movedim(kind.axis, 1))
    labels = labels.reshape(scores[:, 0].shape)
    outside = (labels < 0) | (labels >= scores.shape[1])
    return F.cross_entropy(scores, labels.masked_fill(outside, IGNORED), ignore_index=IGNORED)


def _of_two_classes(kind: OutputKind, output: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each probability or logit, with 0, 1 or what lies between; or with the index of one class."""
    if kind.form == "probabilities":
        output = torch.logit(output.float(), eps=SMALLEST)
    if labels.numel() != output.numel():
        labels = F.one_hot(labels.reshape(len(labels)), output.shape[1])
    return F.binary_cross_entropy_with_logits(output.float(), labels.float().reshape(output.shape))


def _squared(kind: OutputKind, output: Tensor, labels: Tensor) -> Tensor:
    """Squared error over the variance of the model's outputs; of what the model makes of logits, as it is."""
    spread = kind.spread.to(output.device)
    if kind.activation:
        output, spread = getattr(output, ACTIVATIONS[kind.activation])(kind.axis), torch.ones_like(spread)
    return ((output.float() - labels.float().reshape(output.shape)).square() / spread).mean()


def _scores(kind: OutputKind, output: Tensor) -> Tensor:
    return output.float().clamp(min=SMALLEST).log() if kind.form == "shares" else output


IGNORED = -100  # the label of what is void
SMALLEST = 1e-6  # of a probability whose logarithm is taken
ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
TASKS: Mapping[Task, Callable[[OutputKind, Tensor, Tensor], Tensor]] = {
    "cross-entropy": _of_classes,
    "binary-cross-entropy": _of_two_classes,
    "mse": _squared,
}
LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "mse": mse}


def losses_by_output(
    loss: Loss, outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch
) -> Mapping[str, Tensor]:
    """The parts that the loss adds up, by output; one without parts is a single one, under ""."""
    return loss.parts(outputs, labels, batch) if isinstance(loss, Parted) else {"": loss(outputs, labels, batch)}


def load_loss(name: str, data: TrainData) -> Loss:
    """The loss of that name, "auto" by the labels, or the function that `file.py:function` names.

    Raises InputError when there is none, when labels are missing, or when what the function returns is no scalar.
    """
    if is_function_spec(name):
        return user_loss(name)
    if data.labels is None:
        raise InputError('training needs labels ("y" in an .npz file), or your own loss: [train] loss = "file.py:loss"')
    if name == "auto":
        name = "cross-entropy" if data.labels.dtype == np.int64 else "mse"
    if name not in LOSSES:
        raise InputError(f"loss {name!r}: expected auto, {', '.join(map(repr, LOSSES))} or 'file.py:function'")
    return LOSSES[name]


def task_loss(model: ir.Model, settings: Train, data: TrainData) -> Loss | None:
    """The loss of the data's labels alone, the mean over the outputs that have some, or the user's own; None without
    labels.

    What a part of a model is worth is asked of it: a loss against a teacher has no gradient while the model still is
    the teacher.
    """
    if is_function_spec(settings.loss):
        return user_loss(settings.loss)
    if data.labels is None and not data.output_labels:
        return None
    kinds = [(i, kind) for i, kind in enumerate(output_kinds(model, data, settings.loss)) if kind and kind.task]

    def loss(outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
        given = [(kind, outputs[i], batch.output_labels[kind.name] if i else present(labels)) for i, kind in kinds]
        return torch.stack([label_loss(*each) for each in given]).mean()

    return loss


def user_loss(spec: str) -> Loss:
    """The function that `file.py:function` names. Raises InputError when what it returns is no scalar."""
    function = load_function(spec)

    def loss(outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
        value = function(outputs, labels, batch)
        if not isinstance(value, Tensor) or value.ndim:
            found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{spec} returned {found}; expected a torch tensor without dimensions")
        return value

    return loss
