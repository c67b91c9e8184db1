"""The loss of a model that is to say what another one says."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecompress.train.data import Batch
from edgecompress.train.losses import Loss


def teacher_loss(teacher: nn.Module, hard: Loss | None, *, alpha: float, temperature: float, classes: bool) -> Loss:
    """alpha * soft + (1 - alpha) * hard.

    soft, for classes: temperature^2 times the Kullback-Leibler divergence from the teacher's probabilities at that
    temperature (G. Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2); else the mean
    squared difference of all outputs. hard: on labels; None: soft alone. teacher: gives logits, and is not trained.
    """
    teacher = teacher.eval().requires_grad_(False)
    soft = _divergence(temperature) if classes else _difference

    def loss(outputs: Sequence[Tensor], labels: Tensor | None, batch: Batch) -> Tensor:
        teacher.to(batch.inputs[0].device)
        with torch.no_grad():
            wanted = teacher(*batch.inputs)
        value = soft(outputs, wanted)
        if hard is None or labels is None:
            return value
        return alpha * value + (1 - alpha) * hard(outputs, labels, batch)

    return loss


def _divergence(temperature: float):
    def soft(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        ours, theirs = (F.log_softmax(y[0] / temperature, 1) for y in (outputs, wanted))
        return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)

    return soft


def _difference(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    return torch.stack([F.mse_loss(y, t) for y, t in zip(outputs, wanted)]).mean()
