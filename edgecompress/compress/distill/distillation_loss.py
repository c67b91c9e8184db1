"""The loss of the student: its distance from the teacher and from the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecompress.recipe import Distill
from edgecompress.train.losses import Loss
from edgecompress.train.train_data import Batch


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over samples and positions; classes are axis 1.

    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, section 2: T^2 keeps the gradient's size.
    """
    classes = student.shape[1]
    soft, hard = (y.float().movedim(1, -1).reshape(-1, classes) / temperature for y in (student, teacher))
    divergence = F.kl_div(soft.log_softmax(-1), hard.log_softmax(-1), reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def likeness(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over the teacher's mean square: 1 for a student that says nothing but zeros.

    After Romero et al., FitNets, equation 3, divided so that layers of all sizes count alike.
    """
    student, teacher = student.float(), teacher.float()
    return F.mse_loss(student, teacher) / teacher.square().mean().clamp(min=1e-12)


class DistillationLoss:
    """alpha * teacher's part + (1 - alpha) * labels' part + feature_weight * mean over pairs of `likeness`.

    The teacher's part compares the outputs: logits `softened` when `classes`, else by `likeness`. Without labels (a
    task loss of None, or a batch without them) alpha is 1. The student's module gives its outputs and, behind them,
    the values that stand opposite to `features` of the teacher.
    """

    def __init__(
        self, teacher: nn.Module, settings: Distill, *, classes: bool, features: Sequence[str], task: Loss | None
    ) -> None:
        self.teacher, self.settings, self.classes = teacher.eval(), settings, classes
        self.features, self.task = tuple(features), task

    def __call__(self, outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
        """The loss, a scalar, of the outputs for a batch."""
        settings = self.settings
        task = self.task if labels is not None else None
        alpha = settings.alpha if task is not None else 1.0
        count = len(outputs) - len(self.features)
        value = outputs[0].new_zeros(())
        if task is not None and alpha < 1:
            value = value + (1 - alpha) * task(outputs[:count], labels, batch)
        if alpha > 0 or self.features:
            targets, captured = self._ask(batch)
            floats = [(s, t) for s, t in zip(outputs, targets) if t.is_floating_point()]
            for student, teacher in floats if alpha > 0 else []:
                part = softened(student, teacher, settings.temperature) if self.classes else likeness(student, teacher)
                value = value + alpha / len(floats) * part
            for student, name in zip(outputs[count:], self.features):
                weight = settings.feature_weight / len(self.features)
                value = value + weight * likeness(student, captured[name])
        return value

    def _ask(self, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        self.teacher.to(batch.inputs[0].device)
        with torch.no_grad():
            if self.features:
                return self.teacher(*batch.inputs, capture=self.features)
            return self.teacher(*batch.inputs), {}
