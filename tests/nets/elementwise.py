"""Small torch networks about arithmetic, reductions, masks and moving data about."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Arithmetic(nn.Module):
    """Every unary and binary operator, kept inside its domain."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 12)
        self.register_buffer("scale", torch.linspace(0.5, 2.0, 12))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.mix(x)
        positive = torch.abs(a) + 0.5
        b = torch.log(positive) * torch.sqrt(positive) - torch.rsqrt(positive + y * y)
        c = torch.exp(-torch.abs(b)) + torch.erf(a) / self.scale
        d = torch.min(torch.max(b, c), y) + torch.pow(positive, 1.7) - torch.pow(a, 3.0)
        return d, torch.neg(c) / (1 + torch.square(y)), torch.reciprocal(positive) - torch.tanh(y)


class Reductions(nn.Module):
    """Sums, means and maxima over assorted axes of a 4-D map, with the axes kept and dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        return (
            x.mean((2, 3)),
            x.mean(1, keepdim=True),
            x.sum((1, 3)),
            x.sum(2, keepdim=True),
            torch.amax(x, (2, 3)),
            torch.amax(x, 1, keepdim=True),
            x.mean((1, 2, 3)),
            x.flatten(2).sum(-1),
            x.std((2, 3), unbiased=False),
        )


class Masks(nn.Module):
    """Comparisons, logic, Where, casts and ArgMax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(12, 12)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        y = self.stem(x)
        valid = torch.logical_not(tokens == 0)
        y = torch.where(valid.unsqueeze(-1), y, torch.zeros_like(y))
        y = torch.where(y > 0.1, y * 2, y) + torch.where(y < x, x, -x)
        pooled = y.sum(1) / valid.float().sum(1, keepdim=True).clamp(min=1)
        return y, pooled, pooled.argmax(-1), y.argmax(1)


class Moves(nn.Module):
    """Tile, Expand, Gather, Squeeze and Unsqueeze, Slice with negative bounds, Transpose of five axes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 0, 5, 1]))
        self.query = nn.Parameter(torch.randn(1, 1, 6))
        self.linear = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        picked = x.index_select(2, self.order).repeat(1, 2, 3)
        crossed = x.unsqueeze(3) * self.query.expand(x.shape[0], x.shape[1], 6).unsqueeze(2)
        blocks = x.reshape(x.shape[0], 2, 4, 3, 2).permute(0, 3, 1, 4, 2)
        last = x[:, -1:].squeeze(1)
        return (picked, crossed.sum(-1), blocks, self.linear(last)[:, None].expand(-1, 5, -1), x[:, -6:-1:2, 1:])


class Scores(nn.Module):
    """Softmax and LogSoftmax over each axis, the L2 norm written out, hard activations on a plain vector."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(9, 9)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.linear(x)
        return (
            y.softmax(-1),
            y.softmax(1),
            y.log_softmax(1),
            y / y.square().sum(-1, keepdim=True).sqrt(),
            F.hardsigmoid(y) * F.elu(y, 0.7),
            F.softmin(y, -1).clamp(max=0.5),
            F.leaky_relu(y, 0.2) + F.silu(x),
        )
