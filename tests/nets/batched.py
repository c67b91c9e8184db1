"""Modules whose batch goes through other axes on the way."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DetectorHead(nn.Module):
    """Two scales, flattened and joined; distances to anchors from a distribution over 8 bins, as YOLOv8 has them."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.heads = nn.ModuleList([nn.Conv2d(8, 37, 1), nn.Conv2d(16, 37, 1)])
        self.bins = nn.Conv2d(8, 1, 1, bias=False)
        self.register_buffer("anchors", torch.rand(2, 80))

    def forward(self, x: Tensor) -> Tensor:
        fine = F.silu(self.fine(x))
        maps = [fine, F.silu(self.coarse(fine))]
        joined = torch.cat([head(m).view(x.shape[0], 37, -1) for head, m in zip(self.heads, maps)], 2)
        boxes, scores = joined.split((32, 5), 1)
        count, _, places = boxes.shape
        near = self.bins(boxes.view(count, 4, 8, places).transpose(2, 1).softmax(1)).view(count, 4, places)
        low, high = near.chunk(2, 1)
        low, high = self.anchors[None] - low, self.anchors[None] + high
        return torch.cat([(low + high) / 2, high - low, scores.sigmoid()], 1)


class VisionTransformer(nn.Module):
    """One block, with a class token that is expanded to the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        self.qkv, self.out, self.norm, self.head = (
            nn.Linear(16, 48),
            nn.Linear(16, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        count, length, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(count, length, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(count, length, 16))
        return self.head(self.norm(x)[:, 0])


class Windows(nn.Module):
    """Attention within windows of 4 x 4, which become part of the batch, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mask = nn.Parameter(torch.randn(4, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        count, height, width, _ = x.shape
        split = x.roll((-2, -2), (1, 2)).view(count, height // 4, 4, width // 4, 4, 8).permute(0, 1, 3, 2, 4, 5)
        q, k, v = self.qkv(split.reshape(-1, 16, 8)).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)).view(count, 4, 2, 16, 16) + self.mask[None, :, None]
        mixed = scores.view(-1, 2, 16, 16).softmax(-1) @ v
        parts = self.out(mixed.transpose(1, 2).reshape(-1, 16, 8)).view(count, height // 4, width // 4, 4, 4, 8)
        return parts.permute(0, 1, 3, 2, 4, 5).reshape(count, height, width, 8)


class OneStep(nn.Module):
    """One step of an LSTM that has the batch behind the time."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x.unsqueeze(0))[0].squeeze(0))


class Frames(nn.Module):
    """A convolution of every frame of every sample, and a GRU over the frames, from a state of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv2d(1, 4, 3, 2), nn.GRU(36, 6, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count, frames = x.shape[:2]
        features = F.relu(self.conv(x.view(count * frames, 1, 8, 8))).view(count, frames, -1)
        y, state = self.gru(features, torch.zeros(1, count, 6))
        return y[:, -1], state
