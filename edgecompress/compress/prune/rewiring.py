"""Sparse training: of the weights that a layer keeps, the smallest give their places to others, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgecompress.compress.prune.masks import Masks
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.compress.prune.pruned_weights import Prunable
from edgecompress.support.present import present
from edgecompress.train import Hook

SHARE = 0.3  # of a layer's weights that the first update moves (U. Evci et al., 2020, section 3, alpha)
END = 0.75  # of the steps of a training; after that, masks stay
INTERVAL = 100  # steps between two updates, at most
UPDATES = 60  # at least, where there are steps enough

# Gradient of all weights of a layer, random numbers -> scores of places, the highest of which get a weight.
GROWTH: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    # U. Evci et al., "Rigging the lottery: making all tickets winners", ICML 2020
    "rigl": lambda gradient, random: np.abs(gradient),
    # D. Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity", 2018
    "set": lambda gradient, random: random.random(gradient.shape),
}


def moved(done: float) -> float:
    """The share of a layer's weights that an update moves: alpha / 2 (1 + cos(t pi / T)) (RigL, section 3).

    done: t/T, from 0 to 1.
    """
    return SHARE / 2 * (1 + math.cos(math.pi * min(done, 1.0)))


def interval(total: int) -> int:
    """Steps between two updates in a training of so many steps."""
    return max(min(INTERVAL, int(END * total) // UPDATES), 1)


def rewired(mask: np.ndarray, weight: np.ndarray, growth: np.ndarray, share: float, pattern: Pattern) -> np.ndarray:
    """The mask after one update: the share of its units (weights, or blocks) of smallest magnitude goes, and as many
    come back where growth is highest, among all places without a unit, those just left included.

    All arrays are [output channels, taps, inputs] (`to_taps`). N of M weights stay N in each group of M. Blocks at
    the ends of a weight, which are smaller, change places with blocks of their own size.
    """
    magnitude = np.abs(weight)
    if pattern.keep is not None:
        left = _without_lowest(mask, magnitude, int(share * mask.sum()))
        return pattern.n_of_m(np.where(left, np.inf, growth))
    units, sizes = pattern.units(mask) > 0, pattern.sizes(mask.shape)
    magnitude, growth = pattern.units(magnitude), pattern.units(growth)
    for size in np.unique(sizes):
        alike = sizes == size
        count = int(share * (units & alike).sum())
        left = _without_lowest(units & alike, magnitude, count)
        units = (units & ~alike) | left | _highest(alike & ~left, growth, count)
    return pattern.mask(units, mask.shape)


class Rewiring(Hook):
    """Moves the weights that masks leave, while a model trains; each layer keeps as many as it has at the start.

    A weight whose place is new starts at zero, without what the optimizer remembers of it. Unlike in the paper, the
    step of an update also changes the weights. Weights without a place are zero, so that at an update masks can be
    opened for the gradient of all weights without another effect.
    """

    def __init__(self, masks: Masks, kind: str, seed: int) -> None:
        self.masks, self.growth, self.seed = masks, GROWTH[kind], seed
        self.before: dict[str, Tensor] = {}  # the masks, while they are open

    def on_start(self, module: torch.nn.Module) -> None:
        """Weights without a place become zero."""
        self.masks.on_start(module)
        with torch.no_grad():
            for _, parameter, mask in self._layers():
                parameter.mul_(mask)

    def on_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Whose memory of weights without a place is cleared."""
        self.optimizer = optimizer

    def before_step(self, step: int, total: int) -> None:
        """At an update, let gradients reach all weights."""
        if step and step % interval(total) == 0 and step < END * total:
            for name, _, mask in self._layers():
                self.before[name] = mask.clone()
                mask.fill_(1)

    def on_gradients(self, step: int, total: int) -> None:
        """Update the masks, if this step does."""
        share = moved(step / (END * total))
        for place, w in enumerate(self.masks.weights):
            if (before := self.before.pop(w.name, None)) is not None:
                random = np.random.default_rng([self.seed, 3, step, place])
                self._update(w, before, share, random)

    @torch.no_grad()
    def _update(self, w: Prunable, before: Tensor, share: float, random: np.random.Generator) -> None:
        parameter, mask = self.masks.module.weights[w.name], self.masks.transforms[w.name].mask
        gradient = present(parameter.grad)  # after the backward pass
        held, weight, slope = (to_taps(w.node, x.cpu().numpy()) for x in (before > 0, parameter, gradient))
        with np.errstate(all="ignore"):  # of a training that runs away, whose loss says so
            growth = self.growth(slope, random)
            if w.pruned is not None:  # earlier, which stays
                growth = np.where(to_taps(w.node, w.pruned.mask), growth, -np.inf)
            new = rewired(held, weight, growth, share, self.masks.pattern)
        mask.copy_(torch.from_numpy(from_taps(w.node, new, tuple(mask.shape)).copy()))
        gradient.mul_(mask)
        stays = mask * before
        parameter.mul_(stays)
        for remembered in self.optimizer.state[parameter].values():
            if isinstance(remembered, Tensor) and remembered.shape == parameter.shape:
                remembered.mul_(stays)

    def _layers(self) -> list[tuple[str, Tensor, Tensor]]:
        """(name, parameter, mask) of each layer."""
        module, transforms = self.masks.module, self.masks.transforms
        return [(w.name, module.weights[w.name], transforms[w.name].mask) for w in self.masks.weights]


def _without_lowest(chosen: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The chosen places without the `count` of them that score least."""
    return chosen & ~_highest(chosen, -scores, count)


def _highest(among: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` places of highest score among these; of equal ones, those that come first."""
    order = np.argsort(np.where(among, -scores, np.inf), axis=None, kind="stable")
    result = np.zeros(among.shape, bool)
    result.flat[order[:count]] = True
    return result & among
