"""Losses for training: named ones, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from edgecompress.errors import InputError
from edgecompress.recipe import Train
from edgecompress.support.present import present
from edgecompress.support.user_code import is_function_spec, load_function
from edgecompress.train.train_data import Batch, TrainData

# (outputs in the model's order, labels or None, the batch that they are of) -> a scalar
Loss = Callable[[Sequence[Tensor], Tensor | None, Batch], Tensor]


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


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "mse": mse}


def load_loss(name: str, data: TrainData) -> Loss:
    """The loss of that name, "auto" by the labels, or the function that `file.py:function` names.

    Raises InputError when there is none, when labels are missing, or when what the function returns is no scalar.
    """
    if is_function_spec(name):
        return _user(name)
    if data.labels is None:
        raise InputError('training needs labels ("y" in an .npz file), or your own loss: [train] loss = "file.py:loss"')
    if name == "auto":
        name = "cross-entropy" if data.labels.dtype == np.int64 else "mse"
    if name not in LOSSES:
        raise InputError(f"loss {name!r}: expected auto, {', '.join(map(repr, LOSSES))} or 'file.py:function'")
    return LOSSES[name]


def task_loss(settings: Train, data: TrainData) -> Loss | None:
    """The loss of the data's labels alone, or the user's own; None without labels.

    What a part of a model is worth is asked of it: a loss against a teacher has no gradient while the model still is
    the teacher.
    """
    return None if data.labels is None and not is_function_spec(settings.loss) else load_loss(settings.loss, data)


def _user(spec: str) -> Loss:
    function = load_function(spec)

    def loss(outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
        value = function(outputs, labels, batch)
        if not isinstance(value, Tensor) or value.ndim:
            found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{spec} returned {found}; expected a torch tensor without dimensions")
        return value

    return loss
