"""Small torch networks over sequences: attention and recurrence. Batch first."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Transformer(nn.Module):
    """nn.TransformerEncoder as it comes: MultiheadAttention, Gelu (erf); the norm first or last."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, dropout=0.1, activation="gelu", batch_first=True, norm_first=norm_first
        )
        self.embed = nn.Linear(12, 32)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x)).mean(1))


class CausalLanguageModel(nn.Module):
    """Tokens in; embeddings by Gather, a causal mask by Where, Gelu (tanh), tied output weights."""

    def __init__(self, vocabulary: int = 40, width: int = 32, heads: int = 4, length: int = 10) -> None:
        super().__init__()
        self.heads = heads
        self.tokens, self.positions = (nn.Embedding(vocabulary, width), nn.Parameter(0.1 * torch.randn(length, width)))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU("tanh"), nn.Linear(64, width))
        self.register_buffer("future", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(width // self.heads)
        attention = scores.masked_fill(self.future, -1e4).softmax(-1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(n, length, width))
        x = x + self.mlp(self.norm2(x))
        return F.log_softmax(x @ self.tokens.weight.t(), -1)


class Attention(nn.Module):
    """A bare matrix product of activations, batched and with a broadcast batch."""

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return (torch.matmul(q, k.transpose(-1, -2)) / 4).softmax(-1) @ k, torch.matmul(q, k[:, :1].transpose(-1, -2))


class LSTM(nn.Module):
    """Two layers; the sequence and the last cell state are both outputs."""

    def __init__(self, bidirectional: bool = False) -> None:
        super().__init__()
        self.body = nn.LSTM(6, 12, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(24 if bidirectional else 12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (_, cell) = self.body(x)
        return self.head(y), cell[-1]


class GRU(nn.Module):
    def __init__(self, bidirectional: bool = False) -> None:
        super().__init__()
        self.body = nn.GRU(6, 12, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(24 if bidirectional else 12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, hidden = self.body(x)
        return self.head(y[:, -1]), hidden[0]


class Autoencoder(nn.Module):
    """Fully connected, with BatchNorm, and one layer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(64, 48, bias=False),
            nn.BatchNorm1d(48),
            nn.ReLU(),
            nn.Linear(48, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 48),
            nn.BatchNorm1d(48),
            nn.ReLU(),
            nn.Linear(48, 64),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Mixer(nn.Module):
    """MLP-Mixer: patches by a convolution, then a product along tokens and along channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.channels = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm2(x))).mean(1))
