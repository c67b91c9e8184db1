"""Trains the two networks of the Deep Compression paper on MNIST, and writes them and the data for `convert`.

    python samples/deep_compression/train.py mnist.npz FOLDER [--seeds 0 1 ..]

mnist.npz has train_x uint8 [n, 28, 28], train_y, test_x, test_y. Writes to FOLDER: lenet-300-100-SEED.onnx and
lenet-5-SEED.onnx for each seed (10 epochs each, some minutes), and train.npz, validation.npz (a twelfth of the training
images, which nothing is trained on) and test.npz (x uint8 [n, 28, 28, 1], y). `compress.py` does the rest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPOCHS, BATCH, RATE = 10, 128, 2e-3
VALIDATION = 12  # one of so many training images


class LeNet300(nn.Module):
    """266,200 weights: 784-300-100-10 (LeCun et al., 1998)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class LeNet5(nn.Module):
    """430,500 weights, as Caffe's example has it: 20 and 50 convolutions of 5 x 5, 500 and 10 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv2(F.max_pool2d(self.conv1(x), 2)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


NETWORKS = {"lenet-300-100": LeNet300, "lenet-5": LeNet5}


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """A batch, up to one pixel off in each direction."""
    down, right = torch.randint(0, 3, (2,), generator=generator).tolist()
    return F.pad(x, (1, 1, 1, 1))[:, :, down : down + 28, right : right + 28]


def train(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(moved(x[index], generator)), y[index]).backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}", end="\r", flush=True)


def main(data: Path, folder: Path, seeds: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as stored:
        parts = {part: (stored[f"{part}_x"][..., None], stored[f"{part}_y"]) for part in ("train", "test")}
    x, y = parts["train"]
    held = len(x) // VALIDATION
    parts |= {"train": (x[:-held], y[:-held]), "validation": (x[-held:], y[-held:])}
    for part, (x, y) in parts.items():
        np.savez(folder / f"{part}.npz", x=x, y=y.astype(np.int64))
    images, labels = parts["train"]
    x, y = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255, torch.from_numpy(labels).long()
    for seed in seeds:
        for name, make in NETWORKS.items():
            torch.manual_seed(seed)
            network = make()
            train(network, x, y, seed)
            file = folder / f"{name}-{seed}.onnx"
            torch.onnx.export(network.eval(), (x[:1],), file, dynamo=True, external_data=False, verbose=False)
            print(f"{file} is written")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    main(arguments.data, arguments.folder, arguments.seeds)
