"""ResNet-8 with 90 and 95 % of its weights zero: the gradual schedule beside RigL, SET and soft thresholds.

    EDGECOMPRESS_BENCH_DATA=FOLDER OMP_NUM_THREADS=1 python tests/bench/sparse_training.py [SAMPLES [EPOCHS [SEEDS]]]

FOLDER as in resnet8.py. SAMPLES of the training images (6,000), EPOCHS (2), SEEDS (1). All start from the trained
network, with the same settings of training. A comparison takes 20,000 images or more, 20 epochs and three seeds; less
shows only that all run. Prints top-1 on the first 2,000 test images, for each seed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.ingest import load
from edgecompress.recipe import Prune, Train
from edgecompress.train import Session, TrainData
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import with_batchnorm

METHODS: dict[str, dict[str, Any]] = {
    "gradual": {"schedule": "gradual"},
    "rigl": {"schedule": "rigl"},
    "rigl, erk": {"schedule": "rigl", "allocation": "erk"},
    "set, erk": {"schedule": "set", "allocation": "erk"},
    "soft, thresholds": {"schedule": "soft"},
}


def main(samples: int = 6_000, epochs: int = 2, seeds: int = 1) -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if folder is None:
        print("skipped: EDGECOMPRESS_BENCH_DATA does not name the folder with models/ and data/")
        return 0
    spec = importlib.util.spec_from_file_location("datasets", Path(folder) / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    datasets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(datasets)
    images, labels = datasets.load("cifar10", "train", samples)
    test, truth = datasets.load("cifar10", "test", 2_000)
    data = TrainData.from_arrays([as_input(images)], labels)
    model = with_batchnorm(load(Path(folder) / "models" / "ic_resnet8.onnx").model, data)
    training = Train(epochs=epochs, optimizer="adam", lr=2e-3, augment="flip-crop", validation=0)
    for sparsity in (0.9, 0.95):
        for name, keys in METHODS.items():
            found, start = [], time.process_time()
            for seed in range(seeds):
                settings, session = Prune(sparsity=sparsity, **keys), Session(seed=seed)
                pruned = prune_weights(model, settings, data=data, training=training, session=session)
                with torch.no_grad():
                    outputs = TorchModel(pruned.model).eval()(torch.from_numpy(as_input(test)))[0]
                found.append(100 * float((outputs.argmax(1).numpy() == truth).mean()))
            seconds = time.process_time() - start
            scores = ", ".join(f"{top1:.2f}" for top1 in found)
            print(f"{100 * sparsity:g} %, {name}: top-1 {scores} %, {seconds:.0f} s of CPU time", flush=True)
    return 0


def as_input(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32).transpose(0, 3, 1, 2)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
