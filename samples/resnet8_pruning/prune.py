"""Half of ResNet-8's multiply-accumulates removed by taking out channels, then trained with the original as teacher.

    EDGECOMPRESS_BENCH_DATA=FOLDER python samples/resnet8_pruning/prune.py [--epochs N] [--output FILE.onnx]

FOLDER holds models/ic_resnet8.onnx (mlcommons/tiny) and data/datasets.py with
`load("cifar10", "train" | "test", limit) -> (uint8 [n, 32, 32, 3], int64 [n])`. Seeds are fixed; the test images are
looked at once, at the end. Checkpoints beside the output are what `--resume` goes on from.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.distill.distillation_loss import DistillationLoss
from edgecompress.compress.prune.prune_channels import prune_channels
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.recipe import Distill, Prune, Train
from edgecompress.train import Session, TrainData, train
from edgecompress.train.losses import cross_entropy
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import with_batchnorm
from edgecompress.train.output_kinds import output_kinds

SEED = 0
SCORED = 4096  # training images that say which channels matter
# The convolutions whose outputs are added: what goes from block to block stays as wide as it was.
RESIDUAL = ["model/conv2d/BiasAdd", "model/conv2d_5/BiasAdd", "model/conv2d_8/BiasAdd"]


def main() -> int:
    arguments = _arguments()
    folder = Path(os.environ.get("EDGECOMPRESS_BENCH_DATA") or sys.exit(__doc__))
    torch.set_num_threads(arguments.threads)
    start = time.perf_counter()
    original = load(folder / "models" / "ic_resnet8.onnx").model
    images, labels = _cifar10(folder, "train")
    data = TrainData.from_arrays([images], labels)

    settings = Prune(macs=arguments.macs, criterion="fisher", allocation="capacity", keep=RESIDUAL)
    scored = data.subset(np.arange(SCORED))
    normalised = with_batchnorm(original, data)  # while all channels are there, whose statistics are known
    pruned = prune_channels(normalised, settings, data=scored, loss=cross_entropy, seed=SEED)
    print(pruned, *(f"  {g.name}: {g.before} -> {g.after} channels" for g in pruned.groups), sep="\n", flush=True)

    smaller = _trained(pruned.model, original, data, arguments)
    ir.save(smaller, arguments.output)

    test, truth = _cifar10(folder, "test")
    for name, model in (("original", original), ("pruned", smaller)):
        facts = statistics(model)
        (scores,) = OnnxRuntime(model).run({model.graph.inputs[0].name: test})
        top1 = 100 * np.mean(scores.argmax(1) == truth)
        print(
            f"{name}: {top1:.2f} % top-1 on {len(truth):,} test images, {facts.macs:,} MACs, "
            f"{facts.parameters:,} parameters"
        )
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{(used.ru_utime + used.ru_stime) / 60:.1f} CPU minutes, {(time.perf_counter() - start) / 60:.1f} minutes")
    return 0


def _trained(model: ir.Model, original: ir.Model, data: TrainData, arguments: argparse.Namespace) -> ir.Model:
    student, teacher = TorchModel(model, logits=True), TorchModel(original, logits=True)
    loss = DistillationLoss(teacher, Distill(), output_kinds(original, data))
    training = Train(
        epochs=arguments.epochs,
        lr=0.05,
        weight_decay=1e-4,
        warmup=1,
        augment="flip-crop",
        clip=10.0,
        validation=0.0,
        precision="mixed",
    )
    session = Session(
        stage="fine-tuning",
        seed=SEED,
        checkpoint=arguments.output.with_suffix(".pt"),
        resume=arguments.resume,
        log=lambda line: print(line, flush=True),
    )
    train(student, data, training, loss=loss, session=session)
    return fold_batchnorm(student.write_back())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macs", type=float, default=0.5, help="share of the multiply-accumulates that stays")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("resnet8_pruned.onnx"))
    return parser.parse_args()


def _cifar10(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, 3, 32, 32] of 0..255, as the model takes them, and int64 [n]."""
    spec = importlib.util.spec_from_file_location("datasets", folder / "data" / "datasets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images, labels = module.load("cifar10", split)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32), labels


if __name__ == "__main__":
    sys.exit(main())
