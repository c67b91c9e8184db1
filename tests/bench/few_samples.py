"""What pruning keeps of a network when its user has 200 samples: defaults against one batch of 128 in each epoch.

    EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/few_samples.py

FOLDER holds data/datasets.py with `load("mnist" | "cifar10", "train" | "test", limit)`. A small network learns 10,000
training images; 90 % (CIFAR-10: 80 %) of its weights go with 200 of the others, with labels and without, seeds 0 to 2.
The share of the 2,000 test images that is classified right is printed; a defect is a mean that the defaults do not
lift. Takes three minutes on two busy cores.

Seen, mean of three seeds, before / default: MNIST (float 91.5 %) 16.2 / 78.8 with labels, 16.3 / 77.2 without; CIFAR-10
(float 42.7 %) 33.6 / 41.2 with, 32.5 / 40.1 without.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.conversion.trainer import open_trainer
from edgecompress.ingest import load
from edgecompress.recipe import Recipe
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import with_batchnorm

LEARNED, FEW, TEST, SEEDS = 10_000, 200, 2000, (0, 1, 2)
BEFORE = {"batch": 128, "augment": "none", "patience": 30}


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    spec = importlib.util.spec_from_file_location("datasets", Path(folder) / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    datasets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(datasets)
    failed = 0
    for name, sparsity in (("mnist", 0.9), ("cifar10", 0.8)):
        images, labels = datasets.load(name, "train", LEARNED + len(SEEDS) * FEW)
        test, truth = datasets.load(name, "test", TEST)
        x, tested = (torch.from_numpy(a.transpose(0, 3, 1, 2).astype(np.float32) / 255) for a in (images, test))
        network = learned(x[:LEARNED], torch.from_numpy(labels[:LEARNED]))
        model = load(network, input_shapes={"input": (1, *x.shape[1:])}).model
        print(f"{name}: float {accuracy(network(tested), truth):.1f} %")
        for with_labels in (True, False):
            means = []
            for what, train in (("before", BEFORE), ("default", {})):
                found = []
                for seed in SEEDS:
                    chosen = slice(LEARNED + seed * FEW, LEARNED + (seed + 1) * FEW)
                    given = (x[chosen].numpy(), labels[chosen]) if with_labels else x[chosen].numpy()
                    recipe = Recipe.model_validate({"seed": seed, "train": train, "prune": {"sparsity": sparsity}})
                    found.append(accuracy(pruned(model, given, recipe)(tested)[0], truth))
                means.append(np.mean(found))
                print(
                    f"  {'labels' if with_labels else 'no labels'}, {what}: {np.round(found, 1)}, mean {means[-1]:.1f}"
                )
            failed += means[1] <= means[0]
    return 1 if failed else 0


def learned(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after, stride in ((x.shape[1], 16, 2), (16, 32, 2), (32, 32, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(6):
        for part in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(network(x[part]), y[part]).backward()
            optimizer.step()
    return network.eval()


def pruned(model, given, recipe: Recipe) -> TorchModel:
    with tempfile.TemporaryDirectory() as folder:
        trainer = open_trainer(model, given, recipe, Path(folder), False)
        assert trainer is not None
        whole = with_batchnorm(model, trainer.data)
        settings, training = recipe.prune, trainer.settings(recipe.prune)
        found = prune_weights(
            whole, settings, data=trainer.data, training=training, loss=trainer.loss(), session=trainer.session("prune")
        )
    return TorchModel(found.model, logits=True).eval()


def accuracy(outputs: torch.Tensor, truth: np.ndarray) -> float:
    return 100 * float((outputs.detach().argmax(1).numpy() == truth).mean())


if __name__ == "__main__":
    raise SystemExit(main())
