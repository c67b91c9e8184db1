"""Training speed beside a plain PyTorch loop, on four networks in one run.

    OMP_NUM_THREADS=1 python tests/bench/training_speed.py [SAMPLES]

Each network trains on SAMPLES (2,048) of noise with AdamW: the module itself in a plain loop (images in channels_last),
and the same network through `edgecompress.train`. Both take turns; the least CPU time of EPOCHS epochs of each counts,
which other programs on the machine hardly change. Beside these, [train] precision = "mixed", which takes bfloat16 where
a trial finds it faster; the trial is part of its time. Takes about two minutes. Exits 1 above LIMIT.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from edgecompress.ingest import load
from edgecompress.recipe import Train
from edgecompress.train import Session, TrainData, train
from edgecompress.train.losses import cross_entropy
from edgecompress.train.module.torch_model import TorchModel

BATCH, EPOCHS, LIMIT = 128, 4, 1.1
RATE = 1e-3


def mlp() -> nn.Module:
    """784-300-100-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def convolutions() -> nn.Module:
    """Four convolutions with BatchNorm."""
    layers: list[nn.Module] = []
    for i, o, stride in ((3, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2)):
        layers += [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def separable() -> nn.Module:
    """Depthwise-separable convolutions with BatchNorm."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    for i, o, stride in ((32, 64, 1), (64, 64, 2), (64, 128, 1)):
        layers += [nn.Conv2d(i, i, 3, stride, 1, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU6()]
        layers += [nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


class Transformer(nn.Module):
    """Two encoder blocks over 16 tokens of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, activation="gelu") for _ in range(2)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of tokens [n, 16, 64]."""
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP": (mlp, (1, 28, 28)),
    "convolutions": (convolutions, (3, 32, 32)),
    "depthwise-separable": (separable, (3, 32, 32)),
    "transformer": (Transformer, (16, 64)),
}


def main(samples: int = 2048) -> int:
    """Prints one line for each network."""
    slow = False
    for name, (make, shape) in NETWORKS.items():
        torch.manual_seed(0)
        x = np.random.default_rng(0).normal(size=(samples, *shape)).astype(np.float32)
        labels = np.random.default_rng(1).integers(0, 10, samples)
        network = make()
        model = load(make(), input_shapes={"x": [1, *shape]}, fold_batchnorm=False).model
        ours, data = TorchModel(model, logits=True), TrainData.from_arrays([x], labels)
        memory = torch.channels_last if len(shape) == 3 and name != "MLP" else torch.contiguous_format
        network = network.to(memory_format=memory)
        plain, own, mixed = [], [], []
        for _ in range(EPOCHS):
            plain.append(plain_epoch(network, x, labels, memory))
            own.append(own_epoch(ours, data, "float32"))
            mixed.append(own_epoch(ours, data, "mixed"))
        ratio = min(own) / min(plain)
        slow |= ratio > LIMIT
        print(
            f"{name}: plain {samples / min(plain):,.0f} samples for each CPU second, ours {samples / min(own):,.0f} "
            f"({ratio:.2f} of its time), mixed {samples / min(mixed):,.0f}",
            flush=True,
        )
    return int(slow)


def plain_epoch(network: nn.Module, x: np.ndarray, labels: np.ndarray, memory: torch.memory_format) -> float:
    """Seconds of an epoch as PyTorch's tutorials write it."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    inputs, truth = torch.from_numpy(x), torch.from_numpy(labels)
    start = time.process_time()
    for index in torch.randperm(len(x)).split(BATCH):
        batch = inputs[index]
        batch = batch.contiguous(memory_format=memory) if batch.ndim == 4 else batch
        optimizer.zero_grad()
        F.cross_entropy(network(batch), truth[index]).backward()
        optimizer.step()
    return time.process_time() - start


def own_epoch(module: TorchModel, data: TrainData, precision: str) -> float:
    """Seconds of an epoch of the training loop, with what comes before and after it."""
    settings = Train(epochs=1, batch=BATCH, optimizer="adam", lr=RATE, warmup=0.0, validation=0.0, precision=precision)
    start = time.process_time()
    train(module, data, settings, loss=cross_entropy, session=Session(log=lambda line: None))
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
