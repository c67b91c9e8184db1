"""What gradients say of each weight while a model trains, from which criteria of weights are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgecompress.compress.prune.channel_samples import sampled_loss
from edgecompress.support.present import present

if TYPE_CHECKING:
    from edgecompress.train import TrainData
    from edgecompress.train.losses import Loss
    from edgecompress.train.module.torch_model import TorchModel

MEMORY = 0.98  # of what batches said, each step
EACH_STEP = 2  # samples whose own gradients are taken beside a step's batch
MEMORY_OF_SAMPLES = 0.995  # of what samples said, each sample


@dataclass(frozen=True)
class Samples:
    """What gradients of single samples are taken of. loss: of the data's labels; None: one without labels."""

    data: TrainData
    loss: Loss | None
    seed: int = 0


class WeightStatistics:
    """Running figures of dL/dv for the value v that nodes read in place of each weight w, 0 where it is pruned.

    gradient, squared_gradient: means over batches of dL/dv and of its square. movement: sum over steps of -w dL/dv.
    fisher: mean over samples of the square of the sample's own dL/dv; only with `samples`.
    """

    def __init__(self, module: TorchModel, probes: Mapping[str, nn.Parameter], samples: Samples | None) -> None:
        """probes: by the name of the weight, parameters that are added to what its nodes read, and stay zero."""
        self.module, self.probes, self.samples = module, probes, samples
        keys = ("gradient", "squared_gradient", "movement", *(() if samples is None else ("fisher",)))
        self.figures = {n: {key: torch.zeros_like(p.detach()) for key in keys} for n, p in probes.items()}

    def to(self, device: torch.device) -> None:
        """Move the figures to a device."""
        self.figures = {name: {k: v.to(device) for k, v in each.items()} for name, each in self.figures.items()}

    def take_step(self) -> None:
        """Add the gradients of the step's batch, which the probes then lose, so that no optimizer moves them."""
        for name, probe in self.probes.items():
            g, known = present(probe.grad), self.figures[name]  # after the backward pass
            probe.grad = None
            probe.detach().zero_()  # in a loop of the user's own, the optimizer may have moved it just before
            known["gradient"].mul_(MEMORY).add_(g, alpha=1 - MEMORY)
            known["squared_gradient"].mul_(MEMORY).addcmul_(g, g, value=1 - MEMORY)
            known["movement"].addcmul_(self.module.weights[name].detach(), g, value=-1.0)

    def take_samples(self, step: int, count: int = EACH_STEP) -> None:
        """Add the gradients of `count` single samples, drawn by the seed and the step, with BatchNorm as it is used.

        Every process draws the same ones, so there is nothing to average.
        """
        if self.samples is None:
            return
        data, loss, seed = self.samples.data, self.samples.loss, self.samples.seed
        drawn = np.random.default_rng([seed, 3, step]).integers(0, len(data), count)
        generator, training = torch.Generator().manual_seed(seed + step), self.module.training
        names, probes = list(self.probes), list(self.probes.values())
        self.module.eval()
        for index in drawn:
            batch = data.batch(np.array([index]), probes[0].device)
            outputs = self.module(*batch.inputs)
            if loss is None:
                value = sampled_loss([y.cpu() for y in outputs], generator)  # whose generator is the CPU's
            else:
                value = loss(outputs, batch.labels, batch)
            for name, g in zip(names, torch.autograd.grad(value, probes, allow_unused=True)):
                fisher = self.figures[name]["fisher"].mul_(MEMORY_OF_SAMPLES)
                if g is not None:
                    fisher.addcmul_(g, g, value=1 - MEMORY_OF_SAMPLES)
        self.module.train(training)

    def of(self, name: str) -> dict[str, np.ndarray]:
        """The figures of one weight, arrays of its shape."""
        return {key: value.cpu().numpy() for key, value in self.figures[name].items()}
