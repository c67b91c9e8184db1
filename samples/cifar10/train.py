"""Trains a ResNet-20 or a network like VGG-16 on CIFAR-10, and writes it and the data for `convert`.

    python samples/cifar10/train.py cifar10.npz FOLDER resnet20 [--epochs 30] [--seed 0] [--bfloat16]

cifar10.npz has train_x uint8 [n, 32, 32, 3], train_y, test_x, test_y. Writes to FOLDER: resnet20.onnx (or vgg.onnx),
which takes images of 0..255, train.npz (45,000 images), validation.npz (5,000) and test.npz (x uint8, y). Images are
mirrored and moved by up to four pixels; the learning rate rises and falls once (Smith and Topin, 2018). Nothing is
chosen by the test images, whose accuracy is printed at the end. --bfloat16 computes the layers in that type, which
takes about half the time on a CPU that has it (avx512_bf16 in /proc/cpuinfo); weights and their sums stay float32.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, RATE, DECAY = 128, 0.2, 5e-4
VALIDATION = 5000
VGG = (32, 32, "pool", 64, 64, "pool", 96, 96, 96, "pool", 128, 128, 128, "pool", 128, 128, 128)


class Normalised(nn.Module):
    """The network on images of 0..255: what every photo of the training set has on average is part of the model."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([125.3, 123.0, 113.9]).view(3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor([63.0, 62.1, 66.7]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - self.mean) * self.scale)


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., 2016), a 1 x 1 convolution where shapes differ."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet20() -> nn.Module:
    """ResNet-20: three stages of three blocks, 16, 32 and 64 channels; 41 million multiply-accumulates."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for stage, out in enumerate((16, 32, 64)):
        for block in range(3):
            layers.append(Block(channels, out, 2 if stage and block == 0 else 1))
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg() -> nn.Module:
    """VGG-16's thirteen convolutions (Simonyan and Zisserman, 2015), narrower, with BatchNorm, and one matrix."""
    layers: list[nn.Module] = []
    channels = 3
    for out in VGG:
        if isinstance(out, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


NETWORKS = {"resnet20": resnet20, "vgg": vgg}


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """A batch, each image mirrored or not and moved by up to four pixels in each direction."""
    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)
    down, right = torch.randint(0, 9, (2, n, 1), generator=generator)
    rows, columns = down + torch.arange(32), right + torch.arange(32)
    padded = F.pad(x, (4, 4, 4, 4)).permute(0, 2, 3, 1)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percent of the images uint8 [n, 3, 32, 32] whose class is right."""
    model.eval()
    with torch.no_grad():
        hits = [(model(a.float()).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500), strict=True)]
    return 100 * sum(hits) / len(y)


def train(
    model: nn.Module, x: Tensor, y: Tensor, held: tuple[Tensor, Tensor], epochs: int, seed: int, bfloat16: bool
) -> None:
    """In place, on images uint8 [n, 3, 32, 32]; the held-out images are only looked at."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=DECAY, nesterov=True)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.25)
    for epoch in range(epochs):
        model.train()
        start, total = time.perf_counter(), 0.0
        for chosen in torch.randperm(len(x), generator=generator)[: steps // epochs * BATCH].split(BATCH):
            batch = augmented(x[chosen].float(), generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(model(batch), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * BATCH / (steps // epochs * BATCH)
        print(
            f"epoch {epoch + 1}: loss {total:.3f}, validation {accuracy(model, *held):.2f} %,"
            f" {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    data = np.load(arguments.images)
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "train": (data["train_x"][:-VALIDATION], data["train_y"][:-VALIDATION]),
        "validation": (data["train_x"][-VALIDATION:], data["train_y"][-VALIDATION:]),
        "test": (data["test_x"], data["test_y"]),
    }
    for name, (x, y) in parts.items():
        np.savez_compressed(folder / f"{name}.npz", x=x, y=y.astype(np.int64))
    tensors = {
        name: (torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(y.astype(np.int64)))
        for name, (x, y) in parts.items()
    }
    torch.manual_seed(arguments.seed)
    model = Normalised(NETWORKS[arguments.network]()).to(memory_format=torch.channels_last)
    start = time.process_time()
    train(model, *tensors["train"], tensors["validation"], arguments.epochs, arguments.seed, arguments.bfloat16)
    print(f"test {accuracy(model, *tensors['test']):.2f} %, {(time.process_time() - start) / 60:.1f} CPU minutes")
    example = torch.zeros(1, 3, 32, 32)
    name = str(folder / f"{arguments.network}.onnx")
    torch.onnx.export(model.eval(), (example,), name, input_names=["image"], output_names=["logits"], dynamo=False)


if __name__ == "__main__":
    main()
