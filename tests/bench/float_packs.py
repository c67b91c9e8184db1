"""Float32 networks as `.pack` on this machine, one thread, beside LiteRT and ONNX Runtime.

    python tests/bench/float_packs.py [NETWORK ...]

Each is converted to all three formats without quantization; latencies are taken in turn, in the same run, and compared
as ratios of the fastest calls. The first output is compared with ONNX Runtime's. Networks have seeded weights; with
EDGECOMPRESS_BENCH_DATA (as for resnet8.py) ResNet-8 and the autoencoder of MLPerf Tiny are measured as well.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from padded_layers import mobilenet_v2
from quality_networks import CASES
from rich.console import Console
from rich.table import Table

import edgecompress_runtime
from edgecompress.emit import pack, tflite
from edgecompress.ingest import load

NAMES = (
    "mobilenet_v2", "yolo8", "segment", "text", "vision", "keywords", "anomaly", "denoiser", "embedding", "voice"
)  # fmt: skip
ROUNDS, SECONDS = 7, 0.05
Run = Callable[[], object]


def exported(name: str, folder: Path) -> Path:
    """The ONNX file of a network."""
    if name.endswith(".onnx"):
        return Path(name)
    torch.manual_seed(0)
    module, inputs = (
        (mobilenet_v2(), (torch.zeros(1, 3, 96, 96),))
        if name == "mobilenet_v2"
        else (CASES[name].module().eval(), CASES[name].inputs(1))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, folder / f"{name}.onnx", dynamo=False, opset_version=17)
    return folder / f"{name}.onnx"


def row(path: Path, folder: Path) -> tuple[float, float, float, float]:
    """Microseconds of the .pack, of the .tflite in LiteRT and of the model in ONNX Runtime; signal to noise in dB."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = load(path).model
    written, packed = tflite.emit(model), pack.emit(model)
    (folder / "model.pack").write_bytes(packed.data)
    ours = edgecompress_runtime.load(folder / "model.pack")
    random = np.random.default_rng(0)
    feeds = {
        str(v.name): random.integers(0, 10, v.shape.numpy())
        if v.dtype.is_integer()
        else random.random(v.shape.numpy(), np.float32)
        for v in model.graph.inputs
    }
    interpreter = Interpreter(model_content=written.data, num_threads=1)
    interpreter.allocate_tensors()
    for tensor, details in zip(written.inputs, interpreter.get_input_details()):
        interpreter.set_tensor(details["index"], tensor.to_device(feeds[tensor.name]))
    arrays = [tensor.to_device(feeds[tensor.name]) for tensor in packed.inputs]
    given = {v.name: feeds[v.name].astype(np.int64 if "int64" in v.type else np.float32) for v in session.get_inputs()}
    expected, found = session.run(None, given)[0], ours(*arrays)
    found = packed.outputs[0].from_device(found[0] if isinstance(found, tuple) else found)
    noise = np.square(expected.astype(np.float64) - found).sum()
    runs: tuple[Run, ...] = (lambda: ours(*arrays), interpreter.invoke, lambda: session.run(None, given))
    best = [min(each) for each in zip(*([_seconds(run) for run in runs] for _ in range(ROUNDS)))]
    return *(1e6 * s for s in best), 10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(noise, 1e-30))


def _seconds(run: Run) -> float:
    """Of the fastest of the calls that fit into a while."""
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> int:
    table = Table("network", "us", "LiteRT", "ratio", "ONNX Runtime", "ratio", "dB", title="float32 .pack, one thread")
    data, names = os.environ.get("EDGECOMPRESS_BENCH_DATA"), sys.argv[1:] or list(NAMES)
    if data and len(sys.argv) == 1:
        names += [str(Path(data) / "models" / f"{name}.onnx") for name in ("ic_resnet8", "ad_autoencoder")]
    ratios = []
    for name in names:
        with tempfile.TemporaryDirectory() as work:
            ours, litert, ort, snr = row(exported(name, Path(work)), Path(work))
        ratios.append(ours / litert)
        cells = f"{ours:,.0f}", f"{litert:,.0f}", f"{ours / litert:.2f}", f"{ort:,.0f}", f"{ours / ort:.2f}"
        table.add_row(Path(name).stem, *cells, f"{snr:.0f}")
        print(Path(name).stem, *cells, f"{snr:.0f}", flush=True)
    Console(width=100).print(table)
    print(f"median of LiteRT's time: {statistics.median(ratios):.2f}, most {max(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
