"""Soft pruning: gates on weights that close while the model trains, as it can bear it, until a budget is met."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.compress.prune.allocation import choose
from edgecompress.compress.prune.closing import FAR, PRIOR, Closing, chance_open, common_shift, hard_concrete, logistic
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.compress.prune.pruned_weights import Prunable
from edgecompress.train.module.torch_model import TorchModel

TINY = 1e-30


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
        self.noise.copy_(logistic(random, len(self.sizes)))

    def gates(self, weight: Tensor) -> Tensor:
        """A sample while training, else the estimate of equation 13."""
        return hard_concrete(self.alpha + self.common, self.noise if self.training else None)

    def order(self, weight: Tensor) -> Tensor:
        """log alpha, but for what is common to all."""
        return self.alpha

    def open(self, order: Tensor, common: float) -> Tensor:
        """The probability that the gate is not 0 (equation 12)."""
        return chance_open(order + common)


GATES: dict[str, type[Gate]] = {"threshold": Threshold, "l0": HardConcrete}


class Gates(Closing):
    """Gates of one kind on the weights of a TorchModel. In the end the best `1 - sparsity` of all weights stay,
    exactly."""

    def __init__(
        self, module: TorchModel, weights: Sequence[Prunable], pattern: Pattern, kind: str, sparsity: float, seed: int
    ) -> None:
        super().__init__(1 - sparsity, seed)
        self.module, self.weights, self.pattern, self.sparsity = module, weights, pattern, sparsity
        self.travel = GATES[kind].travel
        self.transforms: dict[str, Gate] = {}
        for w in weights:
            weight = module.weights[w.name].detach()
            free = np.ones(1, bool) if w.pruned is None else w.pruned.mask
            self.transforms[w.name] = GATES[kind](weight, _units(w, tuple(weight.shape), pattern), free)
            module.set_weight_transform(w.name, self.transforms[w.name])

    def gates(self) -> Iterable[Gate]:
        """One for each weight."""
        return self.transforms.values()

    def draw(self, generators: Callable[[int], np.random.Generator]) -> None:
        """Each gate by its own generator."""
        for place, gate in enumerate(self.gates()):
            gate.draw(generators(place))

    def masks(self) -> dict[str, np.ndarray]:
        """bool, of each weight's shape; True stays."""
        return {name: t.mask.cpu().numpy() > 0 for name, t in self.transforms.items()}

    @torch.no_grad()
    def meet(self, left: float) -> None:
        """Of all weights, this share is expected to be open."""
        orders = [(t, t.order(weight).masked_fill(~t.free, -2 * FAR)) for weight, t in self._layers()]
        kept = left * sum(float(t.sizes.sum()) for t, _ in orders)
        shift = common_shift(lambda common: sum(float(t.open(order, common) @ t.sizes) for t, order in orders), kept)
        for transform, _ in orders:
            transform.common.fill_(shift)

    @torch.no_grad()
    def close(self) -> None:
        """The best units stay, as far as their gates are open; masks take the gates' place."""
        self.meet(self.left)
        layers = self._layers()
        orders = [t.order(weight).masked_fill(~t.free, -2 * FAR).cpu().double().numpy() for weight, t in layers]
        kept = choose(orders, [t.sizes.cpu().numpy() for _, t in layers], self.sparsity)
        for (weight, t), units in zip(layers, kept):
            weight.mul_(t.eval().gates(weight)[t.units])
            t.train().mask.mul_(torch.from_numpy(units).to(weight.device)[t.units])
            t.final.fill_(1)

    def _layers(self) -> list[tuple[Tensor, Gate]]:
        return [(self.module.weights[name], transform) for name, transform in self.transforms.items()]


def _sizes(gate: Gate, weight: Tensor) -> Tensor:
    """Mean size of the weights of each unit: [units]."""
    total = torch.zeros_like(gate.sizes).index_add(0, gate.units.ravel(), weight.abs().ravel())
    return total / gate.sizes


def _units(w: Prunable, shape: tuple[int, ...], pattern: Pattern) -> np.ndarray:
    """int64 of the weight's shape: the number of the block that each weight belongs to."""
    taps = to_taps(w.node, np.zeros(shape)).shape
    blocks = pattern.sizes(taps)
    return from_taps(w.node, pattern.mask(np.arange(blocks.size).reshape(blocks.shape), taps), shape)
