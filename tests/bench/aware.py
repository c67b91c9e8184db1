"""ResNet-8 trained for int8: how many predictions of the fake-quantized model are those of the emitted files.

    EDGECOMPRESS_BENCH_DATA=FOLDER OMP_NUM_THREADS=1 python tests/bench/aware.py [SAMPLES [EPOCHS]]

FOLDER as in resnet8.py. SAMPLES of the training images (20,000), EPOCHS (1); the original model is the teacher and
labels are not used. The test images are all 10,000: the .tflite in LiteRT with XNNPACK, the .pack in the runtime,
whose results are those of LiteRT's reference kernels. Exits 1 below 99.9 %. Takes about two minutes of CPU time.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from edgecompress.compress.distill.distillation_loss import DistillationLoss
from edgecompress.compress.quantize import quantize
from edgecompress.compress.quantize.aware import FakeQuantized, train_quantized
from edgecompress.emit import pack, tflite
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import LiteRT, PackRuntime
from edgecompress.ingest import load
from edgecompress.recipe import Distill, Preprocess, Quantize, Train
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.output_kinds import output_kinds

LIMIT = 99.9  # percent


def main(samples: int = 20_000, epochs: int = 1) -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if folder is None:
        print("skipped: EDGECOMPRESS_BENCH_DATA does not name the folder with models/ and data/")
        return 0
    spec = importlib.util.spec_from_file_location("datasets", Path(folder) / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    datasets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(datasets)
    model = load(Path(folder) / "models" / "ic_resnet8.onnx").model
    images, _ = datasets.load("cifar10", "train", samples)
    test, labels = datasets.load("cifar10", "test")
    inputs = {str(model.graph.inputs[0].name): test.astype(np.float32).transpose(0, 3, 1, 2)}
    given = load_data(images, model.graph.inputs, Preprocess())
    annotated = quantize(model, load_data(images[:500], model.graph.inputs, Preprocess()), Quantize()).model
    lowest = show("after calibration", annotated, inputs, labels)
    data = TrainData.from_dataset(given, model)
    loss = DistillationLoss(TorchModel(model, logits=True), Distill(), output_kinds(model, data, "cross-entropy"))
    settings = Train(epochs=epochs, optimizer="adam", lr=1e-3, augment="flip-crop", validation=0)
    start = time.process_time()
    found = train_quantized(annotated, data, settings, loss=loss)
    print(
        f"trained: {samples:,} images, {epochs} epochs, {time.process_time() - start:.0f} s of CPU time, "
        f"loss {found.history.epochs[-1].loss:.4f}",
        flush=True,
    )
    return 1 if min(lowest, show("after training", found.model, inputs, labels)) < LIMIT else 0


def show(what: str, model: ir.Model, inputs: dict[str, np.ndarray], labels: np.ndarray) -> float:
    """Prints top-1 and agreement with both kinds of kernels; returns the lower agreement in percent."""
    files = {"xnnpack": (tflite.emit(model), LiteRT), "reference": (pack.emit(model), PackRuntime)}
    agreed = []
    for kernels, (emitted, interpreter) in files.items():
        inside = fake(model, kernels, inputs)
        outside = interpreter(emitted.data, emitted).run(inputs)[0].argmax(1)
        agreed.append(100 * float(np.mean(inside == outside)))
        top1 = [100 * np.mean(found == labels) for found in (inside, outside)]
        print(
            f"{what}, {kernels}: top-1 {top1[0]:.2f} % in training's evaluation, {top1[1]:.2f} % in the file; "
            f"agreement {agreed[-1]:.2f} %",
            flush=True,
        )
    return min(agreed)


def fake(model: ir.Model, kernels: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    module = FakeQuantized(model, kernels).module.eval()
    arrays = [torch.from_numpy(x) for x in inputs.values()]
    with torch.no_grad():
        logits = [module(*parts)[0] for parts in zip(*(a.split(250) for a in arrays))]
    return torch.cat(logits).argmax(1).numpy()


if __name__ == "__main__":
    sys.exit(main(*(int(text) for text in sys.argv[1:])))
