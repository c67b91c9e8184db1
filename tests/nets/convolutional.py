"""Small convolutional torch networks: image in (NCHW or NCL), logits or small maps out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(inputs: int, outputs: int, kernel: int = 3, activation: nn.Module | None = None, **conv) -> nn.Sequential:
    """Conv (no bias) -> BatchNorm -> activation (ReLU unless given), padded to keep the size at stride 1."""
    conv.setdefault("padding", kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, bias=False, **conv), nn.BatchNorm2d(outputs), activation or nn.ReLU()
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.first = nn.Sequential(block(16, 16), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.second = nn.Sequential(block(16, 24, stride=2), nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24))
        self.shortcut = nn.Conv2d(16, 24, 1, stride=2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.first(x))
        return self.head(F.relu(self.shortcut(x) + self.second(x)))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 8, 1), nn.ReLU(), nn.Conv2d(8, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """MobileNetV3's block: expand, depthwise 5x5, squeeze-and-excitation, project, add."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16, stride=2, activation=nn.Hardswish())
        self.body = nn.Sequential(
            block(16, 48, 1, nn.Hardswish()),
            block(48, 48, 5, nn.Hardswish(), groups=48),
            SqueezeExcitation(48),
            nn.Conv2d(48, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 32), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(32, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.body(x))


class Conv1d(nn.Module):
    """Dilated, strided and grouped convolutions over time, keyword-spotting style."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(8, 16, 5, stride=2, padding=2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Conv1d(16, 16, 3, padding=2, dilation=2, groups=4),
            nn.ReLU(),
            nn.Conv1d(16, 24, 3, padding=4, dilation=4),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(24, 24, 3, groups=24, padding=1),
            nn.Conv1d(24, 32, 1),
            nn.ReLU(),
            nn.AvgPool1d(3, 2),
        )
        self.head = nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(-1))


class Dense(nn.Module):
    """DenseNet: BatchNorm comes first and after a Concat, so that no convolution can absorb it."""

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, 8, 3, padding=1)) for n in (12, 20, 28)
        )
        self.head = nn.Sequential(nn.BatchNorm2d(36), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(36 * 16, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.input_norm(x))
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [block(3, 8, stride=2, activation=nn.ReLU6())]
        for a, b, stride in ((8, 16, 1), (16, 32, 2), (32, 32, 1)):
            layers += [block(a, a, activation=nn.ReLU6(), stride=stride, groups=a), block(a, b, 1, nn.ReLU6())]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10), nn.Softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Activations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        kinds = (
            nn.PReLU(12),
            nn.ELU(),
            nn.LeakyReLU(0.1),
            nn.SiLU(),
            nn.Tanh(),
            nn.Sigmoid(),
            nn.PReLU(),
            nn.Hardtanh(),
            nn.GELU(),
        )
        self.body = nn.ModuleList(block(3 if i == 0 else 12, 12, activation=kind) for i, kind in enumerate(kinds))
        self.head = nn.Conv2d(12, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body[0](x)
        for layer in self.body[1:]:
            x = x + layer(x)
        return self.head(x)


class FlattenToLinear(nn.Module):
    """LeNet: a 4-D map flattened in NCHW order into Linear; LogSoftmax."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 12, 3), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(12 * 5 * 3, 40), nn.ReLU(), nn.Linear(40, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).log_softmax(1)


class Pools(nn.Module):
    """Max pooling with pads and ceil_mode, average pooling with the padding counted and not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 12)
        self.branches = nn.ModuleList(
            [
                nn.MaxPool2d(3, 2, padding=1),
                nn.MaxPool2d(3, 2, ceil_mode=True),
                nn.AvgPool2d(3, 2, padding=1, count_include_pad=True),
                nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
            ]
        )
        self.mix = nn.Conv2d(36, 16, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        a, ceiled, b, c = (pool(x) for pool in self.branches)
        y = self.mix(torch.cat([a, b, c], 1))
        return y, ceiled, F.adaptive_max_pool2d(y, 1)


class ConvNext(nn.Module):
    """LayerNorm over channels through a permute, and a channels-first one written out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.weight, self.bias = nn.Parameter(torch.ones(16)), nn.Parameter(torch.zeros(16))
        self.depthwise, self.norm = nn.Conv2d(16, 16, 7, padding=3, groups=16), nn.LayerNorm(16)
        self.expand, self.project = nn.Linear(16, 64), nn.Linear(64, 16)
        self.gamma = nn.Parameter(torch.full((16,), 0.5))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6) * self.weight[:, None, None] + self.bias[:, None, None]
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.project(F.gelu(self.expand(y)))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((-2, -1)))


class Pads(nn.Module):
    """Asymmetric zero pads, 'same' with an even kernel, reflection, a constant that is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 12, 3, stride=2)
        self.even = nn.Conv2d(12, 12, 4, padding="same")
        self.reflected = nn.Conv2d(12, 12, 3, padding=1, padding_mode="reflect")
        self.last = nn.Conv2d(12, 8, (3, 1), stride=(2, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.strided(F.pad(x, (0, 1, 0, 1))))
        x = F.relu(self.even(x))
        x = F.relu(self.reflected(x))
        return self.last(F.pad(x, (1, 2, 0, 1), value=0.5))


class ChannelShuffle(nn.Module):
    """ShuffleNet: chunk, convolve half, concatenate, shuffle; Slice with steps; uneven Split."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.branch = nn.Sequential(block(8, 8, 1), block(8, 8, groups=8), block(8, 8, 1))
        self.merge = nn.Conv2d(16, 12, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        x = self.merge(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        p, q, r = x.split([3, 4, 5], 1)
        return q[:, 1:4:2, ::2, 1:-1:3] + r[:, :2, ::2, 1:-1:3], torch.cat([p, q[:, :, :, :]], 1)[..., 2:, :]


class TwoBranches(nn.Module):
    """Two images of different sizes in, logits, a map and an embedding out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = block(3, 12, stride=2), block(1, 12)
        self.shared = block(12, 16)
        self.logits, self.embedding = nn.Linear(16, 10), nn.Linear(16, 8)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.shared(self.left(left) - self.right(right))
        pooled = F.adaptive_avg_pool2d(y, 1)[:, :, 0, 0]
        return self.logits(pooled), y, self.embedding(pooled).clamp(-1, 1)
