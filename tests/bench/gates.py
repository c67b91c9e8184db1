"""Gated channels: a residual network for MNIST whose samples open as many channels as they need.

    EDGECOMPRESS_BENCH_DATA=FOLDER OMP_NUM_THREADS=1 python tests/bench/gates.py [MACS [SEED [EPOCHS]]]

FOLDER as in resnet8.py. Trains the network without gates on 20,000 images, then converts it to int8 with and without
[gate] macs = MACS (0.5), trained for EPOCHS (6) by distillation; seed SEED (0). Prints the error on all 10,000 test
images, the share of the multiply-accumulates that run on them, and on the first 24 of them the instructions of a
Cortex-M4 in QEMU, whose outputs are compared with `execute`, bit for bit.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cortex_m import emulated
from torch import nn

from edgecompress import convert
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack

CPU, TRAINED, SAMPLES = "cortex-m4", 20_000, 24


class Residual(nn.Module):
    """relu(x + conv(relu(conv(x)))), wide inside."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, inner, 3, padding=1)
        self.two = nn.Conv2d(inner, channels, 3, padding=1)
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, (inner, channels)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norms[0](self.one(x)))
        return torch.relu(x + self.norms[1](self.two(inner)))


def network() -> nn.Module:
    def layer(inputs: int, outputs: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(
        layer(1, 16, 2), Residual(16, 32), layer(16, 32, 2), Residual(32, 64), Residual(32, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def trained(images: np.ndarray, labels: np.ndarray, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    module, random = network().train(), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for index in np.array_split(random.permutation(len(images))[: steps // epochs * 64], steps // epochs):
            loss = nn.functional.cross_entropy(module(torch.from_numpy(images[index])), torch.from_numpy(labels[index]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return module.eval()


def main(macs: float = 0.5, seed: int = 0, epochs: int = 6) -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if folder is None:
        print("skipped: EDGECOMPRESS_BENCH_DATA does not name the folder with models/ and data/")
        return 0
    spec = importlib.util.spec_from_file_location("datasets", Path(folder) / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    datasets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(datasets)
    images, labels = as_input(*datasets.load("mnist", "train", TRAINED))
    test, truth = as_input(*datasets.load("mnist", "test"))
    start = time.process_time()
    module = trained(images, labels, seed, epochs)
    print(f"trained: {time.process_time() - start:.0f} s of CPU time", flush=True)
    counts: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as work:
        np.savez(f"{work}/train.npz", x=images, y=labels)
        np.savez(f"{work}/test.npz", x=test, y=truth)
        torch.onnx.export(module, (torch.zeros(1, 1, 28, 28),), f"{work}/model.onnx", dynamo=False)
        for name, gate in (("without gates", {}), (f"gates, macs = {macs}", {"macs": macs, "epochs": epochs})):
            start = time.process_time()
            recipe = {"seed": seed, "gate": gate, "train": {"lr": 2e-3, "batch": 64}}
            given = {"train": f"{work}/train.npz"} if gate else {}
            result = convert(
                f"{work}/model.onnx", CPU, output=f"{work}/{len(counts)}", formats=["pack"], recipe=recipe,
                calib=f"{work}/train.npz", eval=f"{work}/test.npz", **given,
            )  # fmt: skip
            print(f"{name}: top-1 {result.report.achieved.worst_value:.2f} % as int8", end=", ")
            print(f"{time.process_time() - start:.0f} s of CPU time")
            for note in (*result.report.goals, *result.report.notes):
                print(f"  {note}")
            counts[name] = instructions(result.artifacts["pack"], test[:SAMPLES])
    before, after = counts.values()
    print(
        f"instructions of {CPU}: {before.mean():,.0f} without gates, with them {after.mean():,.0f} in the mean, ",
        end="",
    )
    print(f"{after.min():,} to {after.max():,}: {1 - after.mean() / before.mean():.1%} fewer")
    return 0


def instructions(pack: Path, images: np.ndarray) -> np.ndarray:
    """Of each image. Raises AssertionError where an output differs from execute's."""
    plan = read_pack(pack.read_bytes()).plan()
    x, run = plan.tensors[plan.inputs[0]], Executor(plan)
    records = images.transpose(0, 2, 3, 1).reshape(-1, *x.shape)
    if x.dtype == np.int8:
        records = np.clip(np.round(records / x.scale[0]) + x.zero, -128, 127).astype(np.int8)
    _, measured = emulated(plan, records, CPU)
    assert measured.outputs == b"".join(run(record)[0].tobytes() for record in records), "the board differs"
    return np.array(measured.counts)


def as_input(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images.astype(np.float32).transpose(0, 3, 1, 2) / 255, labels


if __name__ == "__main__":
    sys.exit(main(*(kind(a) for kind, a in zip((float, int, int), sys.argv[1:]))))
