"""How long the search for better outputs takes on ResNet-50 (He et al. 2016).

    python tests/bench/search_time.py [MIN_SNR ...]

Weights come from a seed (He's initialization; BatchNormalization has the statistics of the data), and 40 smooth images
calibrate. Converts for android once for each limit, 20 and 60 dB without any, and prints the seconds of each step and
what the report says of the search. The second limit can't be reached at int8, so that everything is tried.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first
IMAGES = 40


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the input, or beside a 1x1 convolution of it."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *_conv(inputs, width, 1), nn.ReLU(), *_conv(width, width, 3, stride), nn.ReLU(), *_conv(width, 4 * width, 1)
        )
        beside = stride > 1 or inputs != 4 * width
        self.beside = nn.Sequential(*_conv(inputs, 4 * width, 1, stride)) if beside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.path(x) + self.beside(x))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)


def resnet50() -> nn.Module:
    """For images [n, 3, 224, 224] of 1,000 classes."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, count, stride in BLOCKS:
        for block in range(count):
            layers.append(Bottleneck(inputs, width, 1 if block else stride))
            inputs = 4 * width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def images(count: int) -> Tensor:
    """Smooth fields with noise, 0..1."""
    torch.manual_seed(1)
    smooth = F.interpolate(torch.rand(count, 3, 7, 7), size=224, mode="bilinear")
    return (smooth + 0.05 * torch.randn(count, 3, 224, 224)).clamp(0, 1)


def main() -> int:
    limits = sys.argv[1:] or ["20", "60"]
    with tempfile.TemporaryDirectory() as name:
        folder, network, x = Path(name), resnet50(), images(IMAGES)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # so that the statistics are those of all batches
            for batch in x.split(10):
                network(batch)
        torch.onnx.export(network.eval(), (x[:1],), str(folder / "resnet50.onnx"), dynamo=False, opset_version=17)
        np.savez(folder / "calib.npz", x=x.numpy())
        for limit in limits:
            measure(folder, limit)
    return 0


def measure(folder: Path, limit: str) -> None:
    """Converts once, and prints what took how long."""
    start = time.monotonic()
    command = [sys.executable, "-m", "edgecompress", "convert", folder / "resnet50.onnx", "--target", "android", "-q",
               "-o", folder / limit, "--calib", folder / "calib.npz", "--min-snr", limit]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    print(
        f"--min-snr {limit}: exit {done.returncode}, {time.monotonic() - start:.0f} s", done.stderr[-500:], flush=True
    )
    report = json.loads((folder / limit / "report.json").read_text())
    for stage in report["stages"]:
        print(f"  {stage['name']:12} {stage['wall_seconds']:6.1f} s  {stage['note'] or ''}", flush=True)
    for cure in report["cures"]:
        print(f"  {cure}"[:300], flush=True)


if __name__ == "__main__":
    sys.exit(main())
