"""Masks of weights while a model trains: which weights stay, and when the others are removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.compress.prune.allocation import choose
from edgecompress.compress.prune.criterion import Statistics, load_criterion
from edgecompress.compress.prune.criterion import criterion as criterion_of
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.compress.prune.schedules import SHARE, gradual
from edgecompress.support.present import present
from edgecompress.train import Hook
from edgecompress.train.module.torch_model import TorchModel

UPDATES = 200  # of the masks while a schedule runs
MEMORY = 0.98  # of what gradients said, each step

# Name of a weight, scores of its blocks, their sizes -> scores that can be compared between layers.
Comparable = Callable[[str, np.ndarray, np.ndarray], np.ndarray]


def _last(total: int) -> int:
    """The step with which the schedule ends; of a single one, that one."""
    return min(round(SHARE * total), total - 1)


class Masked(nn.Module):
    """A weight without those that the mask (float 0 or 1) leaves out, which no gradient reaches.

    Letting gradients reach them (T. Lin et al., "Dynamic model pruning with feedback", ICLR 2020) did worse here: with
    Adam's equal steps they drift back by chance (LeNet-300-100 without 95 % of its weights: error 1.60, not 1.28 %).
    """

    mask: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(like))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with zeros where the mask has them."""
        return weight * self.mask


@dataclass(frozen=True)
class Prunable:
    """A weight, and the node that multiplies with it."""

    name: str
    node: ir.Node


class Masks(Hook):
    """Masks on the weights of a TorchModel, which leave nothing out before the first `update`.

    comparable: makes scores of different layers comparable (see allocation.py). rising: the sparsity to reach step by
    step while training; None: masks change by `update` alone.
    """

    def __init__(
        self,
        module: TorchModel,
        weights: Sequence[Prunable],
        pattern: Pattern,
        comparable: Comparable,
        criterion: str,
        *,
        rising: float | None = None,
        seed: int = 0,
    ) -> None:
        self.module, self.weights, self.pattern, self.comparable = module, weights, pattern, comparable
        self.score, self.rising = load_criterion(criterion), rising
        random = np.random.default_rng(seed)
        self.draws = {w.name: random.random(tuple(module.weights[w.name].shape)) for w in weights}
        self.transforms = {w.name: Masked(module.weights[w.name].detach()) for w in weights}
        for name, transform in self.transforms.items():
            module.set_weight_transform(name, transform)
        self.gathers = criterion_of(criterion).gradients
        self.gathered: dict[str, dict[str, Tensor]] = {}

    def on_start(self, module: nn.Module) -> None:
        """Move the masks, and what was gathered, to the device of the module."""
        for w in self.weights:
            parameter = self.module.weights[w.name]
            self.transforms[w.name].to(parameter.device)
            if self.gathers:
                zeros = {key: torch.zeros_like(parameter) for key in ("gradient", "squared", "movement")}
                known = self.gathered.get(w.name, zeros)
                self.gathered[w.name] = {key: value.to(parameter.device) for key, value in known.items()}

    def before_step(self, step: int, total: int) -> None:
        """Update the masks where the schedule says so."""
        if self.rising is None:
            return
        last = _last(total)
        if step == last or (step < last and step % max(last // UPDATES, 1) == 0):
            self.update(gradual(step / last if last else 1.0, self.rising))

    def on_gradients(self, step: int, total: int) -> None:
        """Gather what the criterion needs of the gradients."""
        if not self.gathers:
            return
        for w in self.weights:
            parameter, known = self.module.weights[w.name], self.gathered[w.name]
            g = present(parameter.grad)  # after the backward pass
            known["gradient"].mul_(MEMORY).add_(g, alpha=1 - MEMORY)
            known["squared"].mul_(MEMORY).addcmul_(g, g, value=1 - MEMORY)
            known["movement"].addcmul_(parameter.detach(), g, value=-1.0)

    def settled(self, step: int, total: int) -> bool:
        """Whether the schedule has reached its end."""
        return self.rising is None or step > _last(total)

    def update(self, sparsity: float) -> None:
        """New masks, by the scores of the weights as they are."""
        scores = [to_taps(w.node, self._scores(w)) for w in self.weights]
        if self.pattern.keep is not None:
            masks = [self.pattern.n_of_m(s) for s in scores]
        else:
            sizes = [self.pattern.sizes(s.shape) for s in scores]
            with np.errstate(all="ignore"):  # of a training that runs away, whose loss says so
                units = [
                    self.comparable(w.name, self.pattern.units(s), n) for w, s, n in zip(self.weights, scores, sizes)
                ]
            kept = choose(units, sizes, sparsity)
            masks = [self.pattern.mask(k, s.shape) for k, s in zip(kept, scores)]
        for w, mask in zip(self.weights, masks):
            shape = tuple(self.module.weights[w.name].shape)
            self.transforms[w.name].mask.copy_(torch.from_numpy(from_taps(w.node, mask, shape).copy()))

    def masks(self) -> dict[str, np.ndarray]:
        """bool, of each weight's shape; True stays."""
        return {name: t.mask.cpu().numpy() > 0 for name, t in self.transforms.items()}

    def state_dict(self) -> dict[str, Any]:
        """What was gathered; masks are buffers of the module."""
        return {"gathered": self.gathered}  # masks are buffers of the module

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was gathered before."""
        self.gathered = state["gathered"]
        self.on_start(self.module)

    def _scores(self, w: Prunable) -> np.ndarray:
        weight = self.module.weights[w.name].detach().cpu().numpy()
        known = {k: v.cpu().numpy() for k, v in self.gathered.get(w.name, {}).items()}
        statistics = Statistics(
            gradient=known.get("gradient"),
            squared_gradient=known.get("squared"),
            movement=known.get("movement"),
            draw=self.draws[w.name],
        )
        with np.errstate(all="ignore"):
            return self.score(weight, statistics, str(w.node.name))
