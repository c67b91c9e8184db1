"""Families of architectures whose channels depend on each other in ways of their own, small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.convolutional import SqueezeExcitation, block


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(3, 8), block(8, 8), nn.MaxPool2d(2), block(8, 16), block(16, 16), nn.MaxPool2d(2), nn.Flatten()
        )
        self.head = nn.Sequential(nn.Linear(16 * 16, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class PaddedShortcut(nn.Module):
    """ResNet for CIFAR with shortcut A: strided, and zero channels in front and behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.first = nn.Sequential(block(8, 8), nn.Conv2d(8, 8, 3, padding=1))
        self.second = nn.Sequential(block(8, 16, stride=2), nn.Conv2d(16, 16, 3, padding=1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.first(x))
        x = F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + self.second(x))
        return self.head(x.mean((2, 3)))


class ResNeXt(nn.Module):
    """Bottlenecks around a convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(block(16, 24, 1), block(24, 24, groups=4), nn.Conv2d(24, 16, 1)) for _ in range(2)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.blocks:
            x = F.relu(x + layer(x))
        return self.head(x.mean((2, 3)))


class Inception(nn.Module):
    """Branches of different depth, concatenated, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.modules_ = nn.ModuleList(
            nn.ModuleList(
                [
                    block(n, 6, 1),
                    nn.Sequential(block(n, 4, 1), block(4, 8)),
                    nn.Sequential(nn.MaxPool2d(3, 1, 1), block(n, 4, 1)),
                ]
            )
            for n in (8, 18)
        )
        self.head = nn.Conv2d(18, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branches in self.modules_:
            x = torch.cat([branch(x) for branch in branches], 1)
        return self.head(x).mean((2, 3))


class SENet(nn.Module):
    """Squeeze-and-excitation by fully connected layers, and a residual sum behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 12)
        self.body = nn.Sequential(block(12, 12), nn.Conv2d(12, 12, 3, padding=1))
        self.squeeze, self.excite = nn.Linear(12, 6), nn.Linear(6, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
        return self.head(F.relu(x + y * gate[:, :, None, None]).mean((2, 3)))


class EfficientNet(nn.Module):
    """Inverted bottlenecks with SiLU, squeeze-and-excitation and a depthwise layer, with and without a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, activation=nn.SiLU(), stride=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                block(a, 4 * a, 1, nn.SiLU()),
                block(4 * a, 4 * a, 3, nn.SiLU(), groups=4 * a),
                SqueezeExcitation(4 * a),
                nn.Conv2d(4 * a, b, 1),
                nn.BatchNorm2d(b),
            )
            for a, b in ((8, 8), (8, 12), (12, 12))
        )
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.blocks:
            y = layer(x)
            x = x + y if x.shape == y.shape else y
        return self.head(x.mean((2, 3)))


class ShuffleNet(nn.Module):
    """Two units of half the channels, shuffled in between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16)
        self.branches = nn.ModuleList(
            nn.Sequential(block(8, 8, 1), block(8, 8, groups=8), block(8, 8, 1)) for _ in range(2)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            a, b = x.chunk(2, 1)
            x = torch.cat([a, branch(b)], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x.mean((2, 3)))


class FeaturePyramid(nn.Module):
    """Lateral 1 x 1 layers, sums with the upsampled level above, an output for each level."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([block(3, 8, stride=2), block(8, 12, stride=2), block(12, 16, stride=2)])
        self.lateral = nn.ModuleList(nn.Conv2d(n, 10, 1) for n in (8, 12, 16))
        self.smooth = nn.Conv2d(10, 10, 3, padding=1)
        self.head = nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        top, outputs = None, []
        for lateral, level in reversed(list(zip(self.lateral, levels))):
            side = lateral(level)
            top = side if top is None else side + F.interpolate(top, scale_factor=2)
            outputs.append(self.head(F.relu(self.smooth(top))))
        return tuple(outputs)


class Generator(nn.Module):
    """A vector through a fully connected layer to an image, upsampled by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(12, 16 * 4 * 4)
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2),
            nn.ReLU(),
            nn.Conv2d(8, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.start(x).view(-1, 16, 4, 4))


class FeedForward(nn.Module):
    """A transformer's block after attention: gated, with a residual sum and no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.gate, self.up, self.down = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.down(F.silu(self.gate(x)) * self.up(x)))


class MultiHead(nn.Module):
    """Self-attention with one matrix for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.project = nn.Linear(12, 16), nn.Linear(16, 48)
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        q, k, v = self.project(x).view(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
        return self.head(x + self.out(mixed.transpose(1, 2).reshape(n, t, c)))


IMAGE = (1, 3, 16, 16)
FAMILIES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "vgg": (VGG, IMAGE),
    "resnet_padded_shortcut": (PaddedShortcut, IMAGE),
    "resnext": (ResNeXt, IMAGE),
    "inception": (Inception, IMAGE),
    "senet": (SENet, IMAGE),
    "efficientnet": (EfficientNet, IMAGE),
    "shufflenet": (ShuffleNet, IMAGE),
    "feature_pyramid": (FeaturePyramid, IMAGE),
    "generator": (Generator, (1, 12)),
    "feed_forward": (FeedForward, (1, 7, 12)),
    "multi_head": (MultiHead, (1, 7, 12)),
}
