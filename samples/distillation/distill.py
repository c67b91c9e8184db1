"""A student with at most a quarter of ResNet-8's multiply-accumulates, with and without its teacher.

    EDGECOMPRESS_BENCH_DATA=FOLDER python samples/distillation/distill.py [--epochs N] [--seeds 0 1 2]

FOLDER holds models/ic_resnet8.onnx (MLPerf Tiny; its input is raw pixel values) and data/datasets.py with
`load("cifar10", "train" | "test", limit) -> (uint8 [n, 32, 32, 3], int64 [n])`. For each seed the same student, the
same first weights and the same batches are trained twice: on the labels alone, and on the labels and the teacher.
Prints top-1 on CIFAR-10's 10,000 test images of every run, means and spreads (sample standard deviation), and the
CPU time that it took. Exits 1 when the teacher gains less than half a point.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.analysis.statistics import statistics as costs
from edgecompress.compress.distill.distillation import distill, make_student
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.metrics import top1
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.recipe import Distill, Preprocess, Train
from edgecompress.train import Session, TrainData
from edgecompress.train.module.torch_model import TorchModel

STUDENT = {"width": 0.5, "depth": 0.0}
TEACHER = {"temperature": 4.0, "alpha": 0.9}
TRAINING = {"batch": 128, "lr": 0.1, "weight_decay": 5e-4, "warmup": 0.5, "validation": 0.0, "augment": "flip-crop"}
SHARE, GAIN = 0.25, 0.5  # of the teacher's multiply-accumulates, at most; points of top-1, at least


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    options = arguments()
    teacher = load(Path(folder) / "models" / "ic_resnet8.onnx").model
    data, test = (samples(Path(folder), split, teacher, options.samples) for split in ("train", "test"))
    share = costs(fold_batchnorm(make_student(teacher, Distill(**STUDENT), data, 0))).macs / costs(teacher).macs
    print(f"teacher: top-1 {accuracy(teacher, test):.2f} %; student: {share:.1%} of its multiply-accumulates")
    found: dict[str, list[float]] = {"labels alone": [], "with the teacher": []}
    began = time.process_time()
    for seed in options.seeds:
        for (name, values), alpha in zip(found.items(), (0.0, TEACHER["alpha"])):
            start = time.process_time()
            settings = Distill(**STUDENT, **{**TEACHER, "alpha": alpha})
            training = Train(**TRAINING, epochs=options.epochs, precision=options.precision)
            result = distill(teacher, data, settings, training, session=Session(seed=seed, log=options.log))
            values.append(accuracy(result.model, test))
            minutes = (time.process_time() - start) / 60
            taken = f"{minutes:.1f} CPU minutes, {result.history.precision}"
            print(f"seed {seed}, {name}: {values[-1]:.2f} % ({taken})", flush=True)
    for name, values in found.items():
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        print(f"{name}: {statistics.mean(values):.2f}{spread} %")
    gain = statistics.mean(found["with the teacher"]) - statistics.mean(found["labels alone"])
    print(f"the teacher gains {gain:+.2f} points; {(time.process_time() - began) / 60:.1f} CPU minutes in all")
    return int(gain < GAIN or share > SHARE)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=None, help="of the training and test data; unset: all")
    parser.add_argument("--precision", choices=["float32", "mixed"], default="mixed")
    parser.add_argument("--threads", type=int, default=1, help="results depend on it in the last digits")
    parser.add_argument("--verbose", action="store_true", help="a line for each epoch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.log = print if options.verbose else None
    return options


def samples(folder: Path, split: str, model: ir.Model, limit: int | None) -> TrainData:
    spec = importlib.util.spec_from_file_location("datasets_beside_the_data", folder / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = load_data(module.load("cifar10", split, limit), model.graph.inputs, Preprocess())
    return TrainData.from_dataset(data, model)


def accuracy(model: ir.Model, data: TrainData) -> float:
    """Top-1 in percent."""
    module = TorchModel(model).eval()
    outputs = []
    with torch.no_grad():
        for first in range(0, len(data), 500):
            index = np.arange(first, min(first + 500, len(data)))
            outputs.append(module(*data.batch(index).inputs)[0].numpy())
    return top1([np.concatenate(outputs)], data.labels)


if __name__ == "__main__":
    sys.exit(main())
