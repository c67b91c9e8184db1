"""Masks of weights while a model trains: which weights stay, and when the others are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecompress.compress.prune.allocation import choose
from edgecompress.compress.prune.criterion import Statistics, load_criterion
from edgecompress.compress.prune.criterion import criterion as criterion_of
from edgecompress.compress.prune.layer_shares import Comparable
from edgecompress.compress.prune.patterns import Pattern, from_taps, to_taps
from edgecompress.compress.prune.pruned_weights import Prunable
from edgecompress.compress.prune.schedules import SHARE, gradual
from edgecompress.compress.prune.weight_statistics import Samples, WeightStatistics
from edgecompress.train import Hook
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.module.zeros import Zeros

UPDATES = 200  # of the masks while a schedule runs


def _last(total: int) -> int:
    """The step with which the schedule ends; of a single one, that one."""
    return min(round(SHARE * total), total - 1)


class Masked(Zeros):
    """A weight without those that the mask leaves out.

    Letting gradients reach them (T. Lin et al., "Dynamic model pruning with feedback", ICLR 2020) did worse here: with
    Adam's equal steps they drift back by chance (LeNet-300-100 without 95 % of its weights: error 1.60, not 1.28 %).

    probe: zeros, whose gradient is that of the masked weight, also where the mask leaves it out; None unless asked for.
    """

    def __init__(self, like: Tensor, *, probed: bool) -> None:
        super().__init__(torch.ones_like(like))
        self.probe = nn.Parameter(torch.zeros_like(like)) if probed else None

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with zeros where the mask has them."""
        masked = super().forward(weight)
        return masked if self.probe is None else masked + self.probe


@dataclass(frozen=True)
class Scoring:
    """How weights are scored: the criterion's name, the samples that one takes single gradients of, and the seed of
    random scores."""

    criterion: str
    samples: Samples | None = None
    seed: int = 0


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
        scoring: Scoring,
        *,
        rising: float | None = None,
        at_most: Mapping[str, float] | None = None,
    ) -> None:
        self.module, self.weights, self.pattern, self.comparable = module, weights, pattern, comparable
        self.score, self.rising, record = load_criterion(scoring.criterion), rising, criterion_of(scoring.criterion)
        random, self.at_most = np.random.default_rng(scoring.seed), at_most or {}
        self.draws = {w.name: random.random(tuple(module.weights[w.name].shape)) for w in weights}
        self.transforms = {w.name: Masked(module.weights[w.name].detach(), probed=record.gradients) for w in weights}
        for name, transform in self.transforms.items():
            module.set_weight_transform(name, transform)
        probes = {name: t.probe for name, t in self.transforms.items() if t.probe is not None}
        self.statistics = (
            WeightStatistics(module, probes, scoring.samples if record.per_sample else None)
            if record.gradients
            else None
        )

    def on_start(self, module: nn.Module) -> None:
        """Move the masks, and what was gathered, to the device of the module."""
        device = next(module.parameters()).device
        for transform in self.transforms.values():
            transform.to(device)
        if self.statistics is not None:
            self.statistics.to(device)

    def before_step(self, step: int, total: int) -> None:
        """Update the masks where the schedule says so."""
        if self.rising is None:
            return
        last = _last(total)
        if step == last or (step < last and step % max(last // UPDATES, 1) == 0):
            self.update(gradual(step / last if last else 1.0, self.rising))

    def on_gradients(self, step: int, total: int) -> None:
        """Gather what the criterion needs of the gradients, as long as scores are still asked for."""
        if self.statistics is None:
            return
        self.statistics.take_step()
        if self.rising is None or step < _last(total):
            self.statistics.take_samples(step)

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
        for w, score, whole in zip(self.weights, scores, masks):
            mask = self._spared(str(w.node.name), score, whole)
            shape = tuple(self.module.weights[w.name].shape)
            kept = from_taps(w.node, mask, shape) & self._free(w)
            self.transforms[w.name].mask.copy_(torch.from_numpy(kept.copy()))

    def _spared(self, name: str, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The mask of a layer [o, taps, i], or one with the sparsity that the layer may have at most."""
        most = self.at_most.get(name)
        if most is None or 1 - mask.mean() <= most:
            return mask
        if self.pattern.keep is not None:
            return np.ones_like(mask)
        kept = choose([self.pattern.units(scores)], [self.pattern.sizes(scores.shape)], most)
        return self.pattern.mask(kept[0], scores.shape)

    def masks(self) -> dict[str, np.ndarray]:
        """bool, of each weight's shape; True stays."""
        return {name: t.mask.cpu().numpy() > 0 for name, t in self.transforms.items()}

    def state_dict(self) -> dict[str, Any]:
        """What was gathered; masks are buffers of the module."""
        return {"figures": {} if self.statistics is None else self.statistics.figures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was gathered before."""
        if self.statistics is not None:
            self.statistics.figures = state["figures"]
        self.on_start(self.module)

    def _scores(self, w: Prunable) -> np.ndarray:
        weight = self.module.weights[w.name].detach().cpu().numpy()
        known = {} if self.statistics is None else self.statistics.of(w.name)
        with np.errstate(all="ignore"):
            scores = self.score(weight, Statistics(**known, draw=self.draws[w.name]), str(w.node.name))
            return np.where(self._free(w), scores, min(scores.min(initial=0.0), 0.0))

    def _free(self, w: Prunable) -> np.ndarray:
        """Where the weight is not zero by an earlier pruning, which stays; the rest goes first."""
        return np.ones(1, bool) if w.pruned is None else w.pruned.mask
