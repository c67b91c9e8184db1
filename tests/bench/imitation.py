"""Classifiers without a Softmax, trained without labels: squared error of logits beside the divergence of classes.

    EDGECOMPRESS_BENCH_DATA=FOLDER OMP_NUM_THREADS=1 python tests/bench/imitation.py [SEEDS]

FOLDER as in resnet8.py, with MNIST and CIFAR-10. Each network is trained with labels, then pruned and trained without
them for EPOCHS, once by each loss, with each of SEEDS (3). Accuracy is top-1 on samples of the training set that were
not trained on; the test set is left alone. Takes about four minutes of CPU time.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from edgecompress.compress.distill.distillation_loss import DistillationLoss
from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.ingest import load
from edgecompress.recipe import Distill, Prune, Train
from edgecompress.train import Session, TrainData
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import with_batchnorm
from edgecompress.train.output_kinds import output_kinds

SAMPLES, HELD, EPOCHS = 3000, 2000, 3
LOSSES = {"squared error": "auto", "divergence": "cross-entropy"}


def mlp() -> nn.Module:
    """784-128-64-10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutions(channels: int) -> nn.Module:
    """Three convolutions with BatchNorm, and a linear layer over their means."""
    layers: list[nn.Module] = []
    for i, o in ((channels, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(i, o, 3, 2 if i < 32 else 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def separable(channels: int) -> nn.Module:
    """A convolution and three depthwise-separable ones."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    for i, o, stride in ((16, 32, 2), (32, 32, 1), (32, 64, 1)):
        layers += [nn.Conv2d(i, i, 3, stride, 1, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU6()]
        layers += [nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


# name: (network, data set, share of the weights that is pruned)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, float]] = {
    "MLP, MNIST": (mlp, "mnist", 0.95),
    "convolutions, MNIST": (lambda: convolutions(1), "mnist", 0.9),
    "separable, MNIST": (lambda: separable(1), "mnist", 0.8),
    "convolutions, CIFAR-10": (lambda: convolutions(3), "cifar10", 0.85),
}


def main(seeds: int = 3) -> int:
    """Prints one line for each network."""
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if folder is None:
        print("skipped: EDGECOMPRESS_BENCH_DATA does not name the folder with data/")
        return 0
    spec = importlib.util.spec_from_file_location("datasets", Path(folder) / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    datasets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(datasets)
    for name, (make, data_set, sparsity) in NETWORKS.items():
        images, labels = datasets.load(data_set, "train", SAMPLES + HELD)
        x = images.astype(np.float32).transpose(0, 3, 1, 2).copy() / 255
        found: dict[str, list[float]] = {loss: [] for loss in LOSSES}
        for seed in range(seeds):
            torch.manual_seed(seed)
            network = fit(make(), x[:SAMPLES], labels[:SAMPLES])
            model = load(network, input_shapes={"x": [1, *x.shape[1:]]}).model
            before = accuracy(TorchModel(model), x, labels)
            for loss in LOSSES:
                found[loss].append(accuracy(pruned(model, x[:SAMPLES], sparsity, loss, seed), x, labels) - before)
        line = ", ".join(f"{k} {np.mean(v):+.2f} ({min(v):+.2f} to {max(v):+.2f})" for k, v in found.items())
        print(f"{name}, {sparsity:.0%} pruned, points against the float model of {before:.1f} %: {line}", flush=True)
    return 0


def fit(network: nn.Module, x: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Trained with labels for eight epochs."""
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    inputs, truth = torch.from_numpy(x), torch.from_numpy(labels)
    for _ in range(8):
        for index in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[index]), truth[index]).backward()
            optimizer.step()
    return network.eval()


def pruned(model, x: np.ndarray, sparsity: float, loss: str, seed: int) -> TorchModel:
    """Pruned while it is trained without labels."""
    data = TrainData.from_arrays([x], None)
    by = DistillationLoss(TorchModel(model, logits=True), Distill(), output_kinds(model, data, LOSSES[loss]))
    training = Train(epochs=EPOCHS, optimizer="adam", lr=3e-3, batch=64)
    quiet = Session(seed=seed, log=lambda line: None)
    start = with_batchnorm(model, data)
    return TorchModel(
        prune_weights(start, Prune(sparsity=sparsity), data=data, training=training, loss=by, session=quiet).model
    )


def accuracy(module: nn.Module, x: np.ndarray, labels: np.ndarray) -> float:
    """Percent of the samples that were kept aside."""
    with torch.no_grad():
        scores = module.eval()(torch.from_numpy(x[SAMPLES:]))[0]
    return 100 * float((scores.argmax(1).numpy() == labels[SAMPLES:]).mean())


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
