"""Masks of weights while a model trains: which weights there are, and when the others go."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.compress.prune.allocation import choose
from edgecompress.compress.prune.criteria import CRITERIA, Statistics
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.compress.prune.schedules import SCHEDULES, SHARE
from edgecompress.graph.torch_bridge import TorchModel
from edgecompress.train import Hook

UPDATES = 200  # of the masks while a schedule runs
MEMORY = 0.98  # of what gradients said, each step

# Scores of one layer's blocks, their sizes, the layer's weight name -> scores comparable between layers.
Comparable = Any


class Masked(nn.Module):
    """A weight without those that the mask (float 0 or 1) leaves out.

    While masks may still change, gradients reach weights that are out as well, so that they can come back (T. Lin
    et al., "Dynamic model pruning with feedback", ICLR 2020).
    """

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(like))
        self.fixed = True

    def forward(self, weight: Tensor) -> Tensor:
        masked = weight * self.mask
        return masked if self.fixed else weight + (masked - weight).detach()


@dataclass(frozen=True)
class Prunable:
    """A weight, and the node that multiplies with it."""

    name: str
    node: ir.Node


class Masks(Hook):
    """Masks on the weights of a TorchModel, made sparser step by step.

    comparable: makes scores of different layers comparable (`allocation.ALLOCATIONS`), by the weight's name.
    sparsity: wanted at the end. start: masks to begin with, by name: bool, of the weight's shape.
    """

    def __init__(
        self, module: TorchModel, weights: Sequence[Prunable], pattern: Pattern, comparable: Comparable,
        criterion: str, schedule: str, sparsity: float, *, seed: int = 0,
        start: Mapping[str, np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        self.module, self.weights, self.pattern, self.comparable = module, weights, pattern, comparable
        self.criterion, self.schedule, self.sparsity = criterion, SCHEDULES[schedule], sparsity
        self.random = np.random.default_rng(seed)
        self.draws = {w.name: self.random.random(tuple(module.weights[w.name].shape)) for w in weights}
        self.transforms = {w.name: Masked(module.weights[w.name].detach()) for w in weights}
        self.gathered = {
            w.name: {k: torch.zeros_like(module.weights[w.name]) for k in ("gradient", "squared", "movement")}
            for w in weights
        }
        self.gathers = criterion in ("taylor", "fisher", "movement")
        for name, transform in self.transforms.items():
            module.set_weight_transform(name, transform)
            if start is not None:
                transform.mask.copy_(torch.from_numpy(start[name]))

    def before_step(self, step: int, total: int) -> None:
        last = round(SHARE * total)
        between = max(last // UPDATES, 1)
        moving = self.schedule is not SCHEDULES["one-shot"] and step < last
        for transform in self.transforms.values():
            transform.fixed = not moving
        if step == 0 and not moving or moving and step % between == 0 or step == last:
            self.update(self.schedule(step / max(last, 1), self.sparsity))

    def on_gradients(self, step: int, total: int) -> None:
        if not self.gathers:
            return
        for w in self.weights:
            parameter, known = self.module.weights[w.name], self.gathered[w.name]
            g = parameter.grad
            known["gradient"].mul_(MEMORY).add_(g, alpha=1 - MEMORY)
            known["squared"].mul_(MEMORY).addcmul_(g, g, value=1 - MEMORY)
            known["movement"].addcmul_(parameter.detach(), g, value=-1.0)

    def settled(self, step: int, total: int) -> bool:
        return step > round(SHARE * total) or self.schedule is SCHEDULES["one-shot"]

    def update(self, sparsity: float) -> None:
        """New masks, by the scores of the weights as they are."""
        scores = [to_taps(w.node, self._scores(w.name)) for w in self.weights]
        if self.pattern.keep is not None:
            masks = [self.pattern.n_of_m(s) for s in scores]
        else:
            sizes = [self.pattern.sizes(s.shape) for s in scores]
            units = [self.comparable(w.name, self.pattern.units(s), n) for w, s, n in zip(self.weights, scores, sizes)]
            kept = choose(units, sizes, sparsity)
            masks = [self.pattern.mask(k, s.shape) for k, s in zip(kept, scores)]
        for w, mask in zip(self.weights, masks):
            shape = tuple(self.module.weights[w.name].shape)
            self.transforms[w.name].mask.copy_(torch.from_numpy(from_taps(w.node, mask, shape).copy()))

    def masks(self) -> dict[str, np.ndarray]:
        """bool, of each weight's shape; True stays."""
        return {name: t.mask.cpu().numpy() > 0 for name, t in self.transforms.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"gathered": self.gathered}  # masks are buffers of the module

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, known in state["gathered"].items():
            for key, value in known.items():
                self.gathered[name][key] = value.to(self.module.weights[name].device)

    def on_start(self, module: nn.Module) -> None:
        for w in self.weights:
            device = self.module.weights[w.name].device
            self.gathered[w.name] = {k: v.to(device) for k, v in self.gathered[w.name].items()}
            self.transforms[w.name].to(device)

    def _scores(self, name: str) -> np.ndarray:
        weight = self.module.weights[name].detach().cpu().numpy()
        known = {k: v.cpu().numpy() for k, v in self.gathered[name].items()} if self.gathers else {}
        statistics = Statistics(
            gradient=known.get("gradient"), squared_gradient=known.get("squared"), movement=known.get("movement"),
            draw=self.draws[name],
        )  # fmt: skip
        return CRITERIA[self.criterion](weight, statistics)
