"""Trains the two networks of the Deep Compression paper on MNIST, and writes them and the data for `convert`.

    python samples/deep_compression/train.py mnist.npz FOLDER

mnist.npz has train_x uint8 [n, 28, 28], train_y, test_x, test_y. Writes to FOLDER: lenet-300-100.onnx and
lenet-5.onnx (10 epochs each, seed 0, some minutes), train.npz and test.npz (x uint8 [n, 28, 28, 1], y).
`compress.py` does the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPOCHS, BATCH, RATE = 10, 128, 2e-3


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


def train(network: nn.Module, x: Tensor, y: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(moved(x[index], generator)), y[index]).backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}", end="\r", flush=True)


def main(data: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as stored:
        parts = {part: (stored[f"{part}_x"][..., None], stored[f"{part}_y"]) for part in ("train", "test")}
    for part, (x, y) in parts.items():
        np.savez(folder / f"{part}.npz", x=x, y=y.astype(np.int64))
    (x, y), (test_x, test_y) = (
        (torch.from_numpy(x).float().permute(0, 3, 1, 2) / 255, torch.from_numpy(y).long()) for x, y in parts.values()
    )
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        network = make()
        train(network, x, y)
        network.eval()
        with torch.no_grad():
            wrong = sum(int((network(a).argmax(1) != b).sum()) for a, b in zip(test_x.split(1000), test_y.split(1000)))
        print(f"{name}: error {100 * wrong / len(test_y):.2f} %")
        torch.onnx.export(network, (x[:1],), folder / f"{name}.onnx", dynamo=True, external_data=False, verbose=False)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
