"""BatchNormalization while it is trained, as a torch module: the one function of an operator that has a state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCHNORM_MOMENTUM = 0.1  # share of a batch in the running statistics, as torch has it


class BatchNorm(nn.Module):
    """Over the batch's statistics in training, which move the running ones; over those in evaluation.

    processes, over_processes: how many share the batch, and a function that gives all of them the mean of their
    tensors, through which gradients go; None: the batch is this one's alone.
    """

    def __init__(self, epsilon: float) -> None:
        """epsilon: added to the variance."""
        super().__init__()
        self.epsilon = epsilon
        self.processes = 1
        self.over_processes: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """x [n, channels, ...] and parameters [channels] -> y of x\'s shape; in training, mean and variance move."""
        if self.training and self.over_processes is not None:
            return self._shared(x, scale, bias, mean, variance)
        return F.batch_norm(x, mean, variance, scale, bias, self.training, BATCHNORM_MOMENTUM, self.epsilon)

    def _shared(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """F.batch_norm with the statistics of all processes' parts, which are equally large."""
        share = self.over_processes
        assert share is not None
        axes, by_channel = [i for i in range(x.ndim) if i != 1], (1, -1, *[1] * (x.ndim - 2))
        centre = share(x.float().mean(axes))
        centred = x.float() - centre.view(by_channel)
        spread = share(centred.square().mean(axes))
        count = self.processes * x.numel() // x.shape[1]
        with torch.no_grad():
            mean.lerp_(centre, BATCHNORM_MOMENTUM)
            variance.lerp_(spread * count / (count - 1), BATCHNORM_MOMENTUM)
        factor = scale * (spread + self.epsilon).rsqrt()
        return (centred * factor.view(by_channel) + bias.view(by_channel)).to(x.dtype)
