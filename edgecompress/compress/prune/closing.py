"""What gates on weights and gates on channels share: the hard concrete distribution, and a training in which they close
as the model can bear it, until a budget is met."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.compress.prune.schedules import SHARE, gradual
from edgecompress.train import Hook

# Of the hard concrete distribution (C. Louizos et al., "Learning sparse neural networks through L0 regularization",
# ICLR 2018, section 2.3 and 4): its temperature, and the ends between which it is stretched.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
PRIOR = 3.0  # of log alpha: by how many times a unit matters more than its like, in logarithms
FAR = 60.0  # of what all gates have in common: fully open, or closed
UPDATES = 200  # of the budget while a schedule runs


def hard_concrete(alpha: Tensor, noise: Tensor | None) -> Tensor:
    """Gates, 0 to 1, of these log alpha: a sample by logistic noise (equations 10 and 11), or, without, the estimate of
    equation 13."""
    s = torch.sigmoid(alpha if noise is None else (noise + alpha) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def chance_open(alpha: Tensor) -> Tensor:
    """The probability that such a gate is not 0 (equation 12)."""
    return torch.sigmoid(alpha - BETA * math.log(-GAMMA / ZETA))


def logistic(random: np.random.Generator, count: int) -> Tensor:
    """float32 [count]: logistic numbers."""
    u = random.uniform(1e-6, 1 - 1e-6, count).astype(np.float32)
    return torch.from_numpy(np.log(u) - np.log1p(-u))


def common_shift(cost: Callable[[float], float], budget: float) -> float:
    """The smallest shift of all gates, between -FAR and FAR, by which `cost`, which grows with it, is the budget."""
    low, high = -FAR, FAR
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) < budget else (low, middle)
    return high


class Closing(Hook, ABC):
    """Gates that close along a schedule, so that at each step a given share is expected to be open. After 70 % of the
    steps masks take their place, and the rest trains what is left.

    left: the share that stays. The parameters of gates are trained here, by Adam, whatever optimizer the weights have.
    """

    travel: float = 60.0  # how far a gate's parameter can move until the masks take over, by Adam's steps

    def __init__(self, left: float, seed: int) -> None:
        self.left, self.seed = left, seed

    @abstractmethod
    def gates(self) -> Iterable[nn.Module]:
        """The modules that hold parameters of gates."""

    @abstractmethod
    def draw(self, generators: Callable[[int], np.random.Generator]) -> None:
        """Draw what is random in the step that comes. generators: one for each place among the gates."""

    @abstractmethod
    def meet(self, left: float) -> None:
        """Shift all gates together so that this share is expected to be open."""

    @abstractmethod
    def close(self) -> None:
        """Choose what stays, and put masks in the gates' place."""

    def on_start(self, module: nn.Module) -> None:
        """Make the optimizer of the gates, on the device of the weights."""
        device = next(module.parameters()).device
        self.adam = torch.optim.Adam(p for gate in self.gates() for p in gate.to(device).parameters())

    def before_step(self, step: int, total: int) -> None:
        """Draw gates, meet the budget of this step, and in the end put masks in their place."""
        last = _last(total)
        self.draw(lambda place: np.random.default_rng([self.seed, 4, step, place]))
        if step < last and step % max(last // UPDATES, 1) == 0:
            self.meet(1 - gradual(step / last, 1 - self.left))
        elif step == last:
            self.close()

    def on_gradients(self, step: int, total: int) -> None:
        """Train the gates."""
        if step < (last := _last(total)):
            for group in self.adam.param_groups:
                group["lr"] = self.travel / last
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.nan_to_num_(0.0, 0.0, 0.0)  # of mixed precision, which leaves such a step out
            self.adam.step()
        self.adam.zero_grad()  # and nothing is left for the optimizer of the weights

    def settled(self, step: int, total: int) -> bool:
        """Whether masks have taken the gates' place."""
        return step > _last(total)

    def state_dict(self) -> dict[str, Any]:
        """The gates' optimizer."""
        return {"adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as before."""
        self.adam.load_state_dict(state["adam"])


def _last(total: int) -> int:
    """The step with which the schedule ends; of a single one, that one."""
    return min(round(SHARE * total), total - 1)
