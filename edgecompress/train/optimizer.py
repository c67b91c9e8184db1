"""Optimizers, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from edgecompress.recipe import Train

# how far a run has come after its warm-up (0 to 1) -> share of the highest learning rate
SCHEDULES: dict[str, Callable[[float], float]] = {
    # Loshchilov and Hutter, SGDR, equation 5, one period
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),
}


def learning_rate(settings: Train, step: int, total: int, warmup: int) -> float:
    """The learning rate of step 0, 1, .. of `total`, the first `warmup` of which rise to the highest."""
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * SCHEDULES[settings.schedule]((step - warmup) / max(total - warmup, 1))


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], settings: Train
) -> torch.optim.Optimizer:
    """For parameters, or for groups of them (dicts with "params", a factor "lr_scale" and torch's own keys).

    Vectors and scalars (biases, scales, thresholds) get no weight decay. All updates are one kernel's, which on a CPU
    reads and writes each weight once.
    """
    given = list(parameters)
    groups = [each for each in given if isinstance(each, dict)] or [{"params": given}]
    split = []
    for group in groups:
        rest = {k: v for k, v in group.items() if k != "params"}
        trained = [p for p in group["params"] if p.requires_grad]
        decay = rest.pop("weight_decay", settings.weight_decay)
        for params, weight_decay in (
            ([p for p in trained if p.ndim > 1], decay),
            ([p for p in trained if p.ndim <= 1], 0.0),
        ):
            if params:
                split.append({"lr_scale": 1.0, **rest, "params": params, "weight_decay": weight_decay})
    if settings.optimizer == "adam":
        return torch.optim.AdamW(split, lr=settings.lr, fused=True)
    momentum = settings.momentum
    return torch.optim.SGD(split, lr=settings.lr, momentum=momentum, nesterov=momentum > 0, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group of parameters the rate, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
