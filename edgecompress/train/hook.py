"""Hooks: what a method adds to the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Hook:
    """Called by the loop at fixed points; each method may be left out. `total` is the number of steps planned.

    The state is in every checkpoint, so that a resumed run goes on bit for bit; it may hold what
    torch.load(weights_only=True) reads: tensors, numbers, text, lists and dicts.
    """

    def on_start(self, module: nn.Module) -> None:
        """Before the optimizer is made: parameters that are added here are trained."""

    def on_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer is made, whose state may change with what a method does."""

    def before_step(self, step: int, total: int) -> None:
        """Before the outputs of step 0, 1, .. are computed."""

    def on_gradients(self, step: int, total: int) -> None:
        """Between the gradients (already averaged over processes) and the update: a term of the loss, a mask."""

    def after_step(self, step: int, total: int) -> None:
        """After the update."""

    def on_epoch(self, epoch: int) -> None:
        """After epoch 0, 1, ..; before its validation and checkpoint."""

    def settled(self, step: int, total: int) -> bool:
        """Whether weights from after `step` steps may be kept as the best ones: a schedule has reached its end."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the hook."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called after on_start, when a run is resumed."""


def call(hooks: Sequence[Any], method: str, *arguments: Any) -> list[Any]:
    """What the method returns in each hook that has it."""
    return [getattr(hook, method)(*arguments) for hook in hooks if hasattr(hook, method)]
