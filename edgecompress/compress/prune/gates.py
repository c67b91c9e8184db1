"""Soft pruning: gates on weights that close while the model trains, as it can bear it, until a budget is met."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.compress.prune.allocation import choose
from edgecompress.compress.prune.masks import Prunable
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.compress.prune.schedules import SHARE, gradual
from edgecompress.train import Hook
from edgecompress.train.module.torch_model import TorchModel

# Of the hard concrete distribution (C. Louizos et al., "Learning sparse neural networks through L0 regularization",
# ICLR 2018, section 2.3 and 4): its temperature, and the ends between which it is stretched.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
UPDATES = 200  # of the budget while a schedule runs
TINY = 1e-30
PRIOR = 3.0  # of log alpha: by how many times a weight is larger than its layer's, in logarithms
FAR = 60.0  # of what all gates have in common: fully open, or closed


class Gate(nn.Module, ABC):
    """In place of a weight: the weight times a gate for each of its units (single weights, or blocks), and in the end
    times a mask.

    units: int64 of the weight's shape, the unit that each weight belongs to. free: bool that broadcasts to the weight,
    False where an earlier pruning has left a zero. common: what all gates of a model share, by which the budget is met:
    the higher, the more are open.
    """

    travel = 0.3  # how far a gate's parameter can move until the masks take over, by Adam's steps
    mask: Tensor
    final: Tensor
    common: Tensor
    units: Tensor
    sizes: Tensor
    free: Tensor

    def __init__(self, weight: Tensor, units: np.ndarray, free: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("units", torch.from_numpy(units.astype(np.int64)))
        self.register_buffer("sizes", torch.bincount(self.units.ravel()).float())
        self.register_buffer("mask", torch.from_numpy(free).to(weight.dtype).expand_as(weight).clone())
        self.register_buffer("free", torch.zeros(len(self.sizes), dtype=torch.bool))
        self.free[self.units[self.mask > 0]] = True
        self.register_buffer("final", torch.zeros(()))  # 1: the mask has taken the gates' place
        self.register_buffer("common", torch.tensor(FAR))

    def forward(self, weight: Tensor) -> Tensor:
        """What nodes read."""
        masked = weight * self.mask
        return masked if self.final else masked * self.gates(weight)[self.units]

    @abstractmethod
    def gates(self, weight: Tensor) -> Tensor:
        """[units], 0 to 1."""

    def draw(self, random: np.random.Generator) -> None:
        """Draw what is random in the step that comes."""

    @abstractmethod
    def order(self, weight: Tensor) -> Tensor:
        """[units]: those of the lowest go first, in all layers."""

    @abstractmethod
    def open(self, order: Tensor, common: float) -> Tensor:
        """[units], 0 to 1: how likely each is to be open."""


class Threshold(Gate):
    """Soft thresholding, sign(w) max(|w| - t, 0), with a threshold of each layer that is learned (A. Kusupati et al.,
    "Soft threshold weight reparameterization for learnable sparsity", ICML 2020, equation 4).

    t = exp(-relative - common): `relative` is learned and says how layers share the sparsity; `common` meets the
    budget. The paper leaves both to weight decay. Of a block, |w| is the mean.
    """

    def __init__(self, weight: Tensor, units: np.ndarray, free: np.ndarray) -> None:
        super().__init__(weight, units, free)
        self.relative = nn.Parameter(torch.zeros(()))

    def gates(self, weight: Tensor) -> Tensor:
        """max(1 - t / |w|, 0)."""
        size = _sizes(self, weight).clamp_min(TINY)
        return torch.relu(1 - (-self.relative - self.common).exp() / size)

    def order(self, weight: Tensor) -> Tensor:
        """log(|w| / t), but for what is common to all."""
        return _sizes(self, weight).log() + self.relative

    def open(self, order: Tensor, common: float) -> Tensor:
        """1 where |w| > t."""
        return (order + common > 0).float()


class HardConcrete(Gate):
    """Gates that are drawn from hard concrete distributions, whose log alpha are learned and, for the budget, shifted
    together (C. Louizos et al., 2018, equations 10 to 13; their penalty is a price in place of a budget)."""

    travel = 60.0
    noise: Tensor

    def __init__(self, weight: Tensor, units: np.ndarray, free: np.ndarray) -> None:
        super().__init__(weight, units, free)
        size = _sizes(self, weight)
        size = (size / size.square().mean().sqrt().clamp_min(TINY)).clamp(1 / FAR, FAR)
        self.alpha = nn.Parameter(PRIOR * size.log())
        self.register_buffer("noise", torch.zeros_like(self.sizes), persistent=False)

    def draw(self, random: np.random.Generator) -> None:
        """A logistic number for each gate."""
        u = random.uniform(1e-6, 1 - 1e-6, len(self.sizes)).astype(np.float32)
        self.noise.copy_(torch.from_numpy(np.log(u) - np.log1p(-u)))

    def gates(self, weight: Tensor) -> Tensor:
        """A sample while training, else the estimate of equation 13."""
        alpha = self.alpha + self.common
        s = torch.sigmoid((self.noise + alpha) / BETA if self.training else alpha)
        return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def order(self, weight: Tensor) -> Tensor:
        """log alpha, but for what is common to all."""
        return self.alpha

    def open(self, order: Tensor, common: float) -> Tensor:
        """The probability that the gate is not 0 (equation 12)."""
        return torch.sigmoid(order + common - BETA * math.log(-GAMMA / ZETA))


GATES: dict[str, type[Gate]] = {"threshold": Threshold, "l0": HardConcrete}


class Gates(Hook):
    """Gates of one kind on the weights of a TorchModel. They close along a schedule, so that at each time a given share
    is expected to be open; then the best `1 - sparsity` of all weights stay, exactly, and train on.

    The parameters of gates are trained here, by Adam, whatever optimizer the weights have.
    """

    def __init__(
        self, module: TorchModel, weights: Sequence[Prunable], pattern: Pattern, kind: str, sparsity: float, seed: int
    ) -> None:
        self.module, self.weights, self.pattern, self.sparsity, self.seed = module, weights, pattern, sparsity, seed
        self.transforms: dict[str, Gate] = {}
        for w in weights:
            weight = module.weights[w.name].detach()
            free = np.ones(1, bool) if w.pruned is None else w.pruned.mask
            self.transforms[w.name] = GATES[kind](weight, _units(w, tuple(weight.shape), pattern), free)
            module.set_weight_transform(w.name, self.transforms[w.name])

    def on_start(self, module: nn.Module) -> None:
        """Make the optimizer of the gates."""
        for w in self.weights:
            self.transforms[w.name].to(self.module.weights[w.name].device)
        gates = list(self.transforms.values())
        self.travel = gates[0].travel
        self.adam = torch.optim.Adam(p for t in gates for p in t.parameters())

    def before_step(self, step: int, total: int) -> None:
        """Draw gates, meet the budget of this step, and in the end put masks in their place."""
        last = _last(total)
        for place, transform in enumerate(self.transforms.values()):
            transform.draw(np.random.default_rng([self.seed, 4, step, place]))
        if step < last and step % max(last // UPDATES, 1) == 0:
            self._meet(gradual(step / last, self.sparsity))
        elif step == last:
            self._close()

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

    def masks(self) -> dict[str, np.ndarray]:
        """bool, of each weight's shape; True stays."""
        return {name: t.mask.cpu().numpy() > 0 for name, t in self.transforms.items()}

    def state_dict(self) -> dict[str, Any]:
        """The gates' optimizer."""
        return {"adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as before."""
        self.adam.load_state_dict(state["adam"])

    def _layers(self) -> list[tuple[Tensor, Gate]]:
        return [(self.module.weights[name], transform) for name, transform in self.transforms.items()]

    @torch.no_grad()
    def _meet(self, sparsity: float) -> None:
        """Choose what all gates have in common so that this share of all weights is expected to be out."""
        orders = [(t, t.order(weight).masked_fill(~t.free, -2 * FAR)) for weight, t in self._layers()]
        kept = (1 - sparsity) * sum(float(t.sizes.sum()) for t, _ in orders)
        low, high = -FAR, FAR
        for _ in range(40):
            middle = (low + high) / 2
            if sum(float(t.open(order, middle) @ t.sizes) for t, order in orders) < kept:
                low = middle
            else:
                high = middle
        for transform, _ in orders:
            transform.common.fill_(high)

    @torch.no_grad()
    def _close(self) -> None:
        """The best units stay, as far as their gates are open; masks take the gates' place."""
        self._meet(self.sparsity)
        layers = self._layers()
        orders = [t.order(weight).masked_fill(~t.free, -2 * FAR).cpu().double().numpy() for weight, t in layers]
        kept = choose(orders, [t.sizes.cpu().numpy() for _, t in layers], self.sparsity)
        for (weight, t), units in zip(layers, kept):
            weight.mul_(t.eval().gates(weight)[t.units])
            t.train().mask.mul_(torch.from_numpy(units).to(weight.device)[t.units])
            t.final.fill_(1)


def _sizes(gate: Gate, weight: Tensor) -> Tensor:
    """Mean size of the weights of each unit: [units]."""
    total = torch.zeros_like(gate.sizes).index_add(0, gate.units.ravel(), weight.abs().ravel())
    return total / gate.sizes


def _last(total: int) -> int:
    """The step with which the schedule ends; of a single one, that one."""
    return min(round(SHARE * total), total - 1)


def _units(w: Prunable, shape: tuple[int, ...], pattern: Pattern) -> np.ndarray:
    """int64 of the weight's shape: the number of the block that each weight belongs to."""
    taps = to_taps(w.node, np.zeros(shape)).shape
    blocks = pattern.sizes(taps)
    return from_taps(w.node, pattern.mask(np.arange(blocks.size).reshape(blocks.shape), taps), shape)
