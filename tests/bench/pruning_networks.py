"""Networks that pruning is compared on: six small ones, trained on a few thousand images (a plain CNN, residual blocks,
depthwise blocks, a perceptron, a transformer, and a detector that finds where in the image a digit is), and ResNet-8 of
MLPerf Tiny, which others trained to the end.

All have BatchNormalization where networks of their kind have it. `trained` gives the torch module and what our
importer reads of its ONNX export, in which BatchNormalization is folded.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.prune_channels import prune_channels
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.recipe import Prune, Train
from edgecompress.train import Session, TrainData, train
from edgecompress.train.losses import LOSSES, Loss
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import refresh_statistics, with_batchnorm

TRAIN, HELD_OUT, TEST = 5000, 2000, 2000  # images; those held out, on which settings are chosen, are training images
Split = dict[str, TrainData]


@dataclass(frozen=True)
class Network:
    """module: makes it, untrained; None: the file `models/ic_resnet8.onnx`. data: TRAIN images, HELD_OUT others, and
    test images. epochs: of its training."""

    name: str
    module: Callable[[], nn.Module] | None
    data: Callable[[], Split]
    epochs: int = 0
    loss: str = "cross-entropy"

    @property
    def classes(self) -> bool:
        return self.loss == "cross-entropy"

    @property
    def task(self) -> Loss:
        return LOSSES[self.loss]


@dataclass(frozen=True)
class Trained:
    """A network with its data, its canonical model and, but for ResNet-8, its torch module."""

    network: Network
    data: Split
    model: ir.Model = field(repr=False)
    module: nn.Module | None = field(default=None, repr=False)

    def before(self, split: str) -> float:
        """Its score before anything is pruned."""
        return self.score(TorchModel(self.model, logits=self.network.classes), split)

    def score(self, module: nn.Module, split: str) -> float:
        """Percent of right classes, or of the variance that is explained (R^2). module: returns a tuple."""
        data = self.data[split]
        module.eval()
        with torch.no_grad():
            parts = [
                module(*data.batch(np.arange(i, min(i + 500, len(data)))).inputs)[0] for i in range(0, len(data), 500)
            ]
        found, wanted = torch.cat(parts).numpy(), data.labels
        if self.network.classes:
            return 100 * float(np.mean(found.argmax(1) == wanted))
        return 100 * float(1 - np.square(found - wanted).sum() / np.square(wanted - wanted.mean(0)).sum())


class Tuple(nn.Module):
    """A module of one output, as the training loop takes it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.module(*inputs),)


# networks ---------------------------------------------------------------------------------------------


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with BatchNormalization."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(1, 16, stride=2), conv(16, 32, stride=2), conv(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b, self.c):
            x = F.relu(layer(x))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = conv(inputs, outputs, stride=stride), conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.a(x))) + self.shortcut(x))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, stride=2)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.expand, self.spatial = conv(inputs, wide, 1), conv(wide, wide, stride=stride, groups=wide)
        self.project, self.adds = conv(wide, outputs, 1), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(F.relu(self.spatial(F.relu(self.expand(x)))))
        return x + y if self.adds else y


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, stride=2)
        self.blocks = nn.Sequential(Inverted(16, 16, 1), Inverted(16, 24, 2), Inverted(24, 24, 1))
        self.last, self.head = conv(24, 64, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(x.flatten(1))))))


class Attention(nn.Module):
    heads = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, y = x.shape[0], x.shape[1], self.first(x)
        q, k, v = (each(y).reshape(batch, tokens, self.heads, -1).transpose(1, 2) for each in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return x + self.down(F.gelu(self.up(self.second(x))))


class Transformer(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(*(Attention(width) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(1, 16, stride=2), conv(16, 24, stride=2), conv(24, 32, stride=2)
        self.hidden, self.head = nn.Linear(32 * 36, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b, self.c):
            x = F.relu(layer(x))
        return self.head(F.relu(self.hidden(x.flatten(1))))


# data -------------------------------------------------------------------------------------------------


def folder() -> Path:
    return Path(os.environ.get("EDGECOMPRESS_BENCH_DATA") or sys.exit("EDGECOMPRESS_BENCH_DATA is not set"))


def images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, channels, height, width] of about -1 to 1, and int64 [n]: TRAIN, HELD_OUT and TEST images."""
    spec = importlib.util.spec_from_file_location("datasets", folder() / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    datasets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(datasets)
    found = [datasets.load(name, *each) for each in (("train", TRAIN + HELD_OUT), ("test", TEST))]
    x, y = (np.concatenate(parts) for parts in zip(*found))
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32) / 127.5 - 1, y


def split(x: np.ndarray, y: np.ndarray) -> Split:
    """The parts by name: "train", "held out" and "test"."""
    ends = {"train": (0, TRAIN), "held out": (TRAIN, TRAIN + HELD_OUT), "test": (TRAIN + HELD_OUT, len(x))}
    return {name: TrainData.from_arrays([x[a:b]], y[a:b]) for name, (a, b) in ends.items()}


def digits() -> Split:
    return split(*images("mnist"))


def photos() -> Split:
    return split(*images("cifar10"))


def pixels() -> Split:
    x, y = images("cifar10")
    return split(np.round((x + 1) * 127.5), y)


def scattered() -> Split:
    """A digit in a noisy image of 48 x 48 that is mostly empty; the label is the box about it, in parts of 48."""
    x, _ = images("mnist")
    random = np.random.default_rng(0)
    whole = random.normal(-1, 0.2, (len(x), 1, 48, 48)).astype(np.float32)
    boxes = np.zeros((len(x), 4), np.float32)
    for i, digit in enumerate(x):
        top, left = random.integers(0, 21, 2)
        place = whole[i, :, top : top + 28, left : left + 28]
        np.maximum(place, digit, out=place)
        rows, columns = (np.flatnonzero((digit[0] > 0).any(axis)) for axis in (1, 0))
        boxes[i] = np.array([top + rows[0], left + columns[0], top + rows[-1], left + columns[-1]]) / 48
    return split(whole, boxes)


NETWORKS = (
    Network("plain CNN", Plain, digits, 5),
    Network("residual", Residual, photos, 8),
    Network("depthwise", Depthwise, photos, 8),
    Network("perceptron", Perceptron, digits, 5),
    Network("transformer", Transformer, digits, 12),
    Network("detector", Detector, scattered, 6, "mse"),
    Network("ResNet-8", None, pixels),
)


def training(epochs: int, **keys: Any) -> Train:
    """How networks are trained here, before and after pruning: AdamW without a warm-up, a half cosine to zero."""
    return Train(
        **{"epochs": epochs, "batch": 64, "optimizer": "adam", "lr": 0.002, "warmup": 0, "validation": 0} | keys
    )


def trained(network: Network, seed: int, work: Path) -> Trained:
    """The network, trained once for each seed: its weights are kept in the folder."""
    data = network.data()
    if network.module is None:
        return Trained(network, data, load(folder() / "models" / "ic_resnet8.onnx").model)
    torch.manual_seed(seed)
    module = network.module()
    stem = work / f"{network.name.replace(' ', '_')}-{seed}"
    if stem.with_suffix(".pt").exists():
        module.load_state_dict(torch.load(stem.with_suffix(".pt"), weights_only=True))
    else:
        fit(Tuple(module), data["train"], network, training(network.epochs, lr=0.004), seed)
        torch.save(module.state_dict(), stem.with_suffix(".pt"))
    module.eval()
    example = data["train"].batch(np.arange(1)).inputs
    torch.onnx.export(copy.deepcopy(module), example, stem.with_suffix(".onnx"), dynamo=False, input_names=["x"])
    return Trained(network, data, load(stem.with_suffix(".onnx")).model, module)


def fit(module: nn.Module, data: TrainData, network: Network, settings: Train, seed: int) -> None:
    """Train a module that returns a tuple, in place, by the one training loop."""
    train(module, data, settings, loss=network.task, session=Session(seed=seed, log=lambda line: None))


@dataclass(frozen=True)
class Smaller:
    """A network without channels, trained; model: folded. share: of the multiply-accumulates that is left."""

    module: TorchModel
    model: ir.Model
    share: float


def without_channels(base: Trained, settings: Prune, training: Train, seed: int) -> Smaller:
    """As `convert` does it, but for the loss, which is that of the labels alone."""
    data, network = base.data["train"], base.network
    normalised = with_batchnorm(base.model, data)
    pruned = prune_channels(normalised, settings, data=data, loss=network.task, seed=seed).model
    module = TorchModel(pruned, logits=network.classes)
    fit(module, data, network, training, seed)
    model = refresh_statistics(module.write_back(), data)
    share = statistics(model).macs / statistics(base.model).macs
    return Smaller(TorchModel(model, logits=network.classes), fold_batchnorm(model), share)
