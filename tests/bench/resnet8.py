"""ResNet-8 and the autoencoder of MLPerf Tiny: accuracy, size and latency against the peers, in one run.

    EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/resnet8.py

FOLDER holds models/ic_resnet8.onnx, models/ad_autoencoder.onnx and the files that TensorFlow's converter
made of them (*_reference_int8.tflite), from mlcommons/tiny, and data/datasets.py with
`load("cifar10", "train" | "test", limit) -> (uint8 [n, 32, 32, 3], int64 [n])`. Where tflite-runtime is
installed (pip install -e ".[tflite-runtime]"), every .tflite file is measured in it too.
Takes minutes; exits 1 when a line misses its limit.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
from rich.console import Console
from rich.table import Table

OLD_RUNTIME = "tflite_runtime.interpreter"


@dataclass(frozen=True)
class Line:
    """One measured figure, and what it should be: at least `low`, at most `high`; neither: for comparison."""

    what: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)

    def cells(self) -> tuple[str, str, str, str]:
        bounds = [f"{sign} {v:,g}" for sign, v in ((">=", self.low), ("<=", self.high)) if v is not None]
        limit = ", ".join(bounds)
        digits = 0 if self.unit == "bytes" else 2
        verdict = ("yes" if self.holds else "NO") if limit else ""
        return self.what, f"{self.value:,.{digits}f} {self.unit}", limit, verdict


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    models, table = Path(folder) / "models", Table("measured", "value", "limit", "holds", title=_versions())
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for bench in (resnet8, autoencoder):
            for line in bench(models, Path(folder) / "data", Path(temporary)):
                print(*line.cells(), sep="  |  ", file=sys.stderr, flush=True)
                table.add_row(*line.cells(), style=None if line.holds else "red")
                failed += not line.holds
            table.add_section()
    Console(width=110).print(table)
    return 1 if failed else 0


def resnet8(models: Path, data: Path, work: Path) -> Iterator[Line]:
    """500 training images calibrate, 10,000 test images evaluate; inputs are raw 0..255 pixels."""
    model, reference = models / "ic_resnet8.onnx", models / "ic_resnet8_reference_int8.tflite"
    datasets = _module(data / "datasets.py")
    images, labels = datasets.load("cifar10", "train", 500)
    np.savez(work / "calib.npz", x=images, y=labels)
    test, truth = datasets.load("cifar10", "test")
    test, calibration = test.transpose(0, 3, 1, 2), images.transpose(0, 3, 1, 2)
    digest = hashlib.sha256(model.read_bytes()).digest()

    def score(run: measure.Runner) -> float:
        return measure.top1(run, test, truth)

    cost = measure.convert(model, "--target", "android", "--calib", work / "calib.npz", "-o", work / "int8")
    yield Line("whole command: wall time", cost.seconds, "s", high=10)
    yield Line("whole command: peak memory", cost.megabytes, "MB", high=1200)
    (work / "io.toml").write_text('[emit]\nio = "int8"\nformats = ["tflite"]\n')
    measure.convert(
        model, "--target", "android", "--recipe", work / "io.toml", "--calib", work / "calib.npz", "-o", work / "io"
    )
    measure.convert(model, "--target", "android", "-o", work / "dynamic")
    changed = hashlib.sha256(model.read_bytes()).digest() != digest
    yield Line("input files changed", changed, "", high=0)

    ours, onnx, int8_io = (_one(work / "int8", "tflite"), _one(work / "int8", "onnx"), _one(work / "io", "tflite"))
    peer = _quantize_static(model, calibration, work / "peer.onnx")
    float_top1 = score(measure.onnx_runner(model))
    yield Line("float .onnx, ONNX Runtime: top-1", float_top1, "%")

    modern = score(measure.tflite_runner(ours))
    yield Line("int8 .tflite, LiteRT: top-1", modern, "%", low=86.9)
    yield Line("int8 .tflite with int8 in and out: top-1", score(measure.tflite_runner(int8_io)), "%", low=86.9)
    yield Line("TensorFlow's int8 .tflite, LiteRT: top-1", score(measure.tflite_runner(reference)), "%")
    yield Line("int8 .tflite: size", ours.stat().st_size, "bytes", high=94_000)
    yield Line("int8 .tflite with int8 in and out: size", int8_io.stat().st_size, "bytes", high=94_000)
    yield Line("TensorFlow's int8 .tflite: size", reference.stat().st_size, "bytes")
    unwanted = measure.tflite_operators(ours) & {"TRANSPOSE", "PAD", "PADV2", "STRIDED_SLICE"}
    yield Line(f"int8 .tflite: operators that move data {sorted(unwanted)}", len(unwanted), "", high=0)
    pixels = test[0]
    for file, name in ((ours, "int8 .tflite"), (int8_io, "int8 .tflite with int8 in and out")):
        yield from _latency(
            name,
            *measure.latency_ratio(measure.tflite_invoker(file, pixels), measure.tflite_invoker(reference, pixels)),
        )

    yield Line("int8 .onnx, ONNX Runtime: top-1", score(measure.onnx_runner(onnx)), "%", low=86.9)
    yield Line("quantize_static's .onnx: top-1", score(measure.onnx_runner(peer)), "%")
    yield Line("int8 .onnx: size", onnx.stat().st_size, "bytes", high=100_000)
    yield Line("quantize_static's .onnx: size", peer.stat().st_size, "bytes")
    a, b = measure.onnx_runner(onnx), measure.onnx_runner(peer)
    yield from _latency("int8 .onnx", *measure.latency_ratio(lambda: a(pixels), lambda: b(pixels)))

    low = float_top1 - 0.3
    light = _one(work / "dynamic", "tflite")
    yield Line("dynamic-range .tflite, LiteRT: top-1", score(measure.tflite_runner(light)), "%", low=low)
    light_onnx = score(measure.onnx_runner(_one(work / "dynamic", "onnx")))
    yield Line("dynamic-range .onnx, ONNX Runtime: top-1", light_onnx, "%", low=low)
    if not _old_runtime():
        return
    for name, file, least in (("int8", ours, modern - 0.3), ("dynamic-range", light, low)):
        old = score(measure.tflite_runner(file, OLD_RUNTIME))
        yield Line(f"{name} .tflite, tflite-runtime: top-1", old, "%", low=least)


def autoencoder(models: Path, data: Path, work: Path) -> Iterator[Line]:
    """There is no audio: 256 rows of about the range of log-mel frames calibrate and compare."""
    model = models / "ad_autoencoder.onnx"
    rows = np.random.default_rng(0).normal(-30, 12, (256, 640)).astype(np.float32)
    np.savez(work / "rows.npz", x=rows)
    run = measure.onnx_runner(model)
    expected = np.stack([run(row) for row in rows])
    measure.convert(model, "--target", "android", "--calib", work / "rows.npz", "-o", work / "ad_int8")
    measure.convert(model, "--target", "android", "-o", work / "ad_dynamic")
    tflite, onnx = _one(work / "ad_int8", "tflite"), _one(work / "ad_int8", "onnx")
    peer = _quantize_static(model, rows, work / "ad_peer.onnx")
    runners: list[tuple[str, measure.Runner, float | None]] = [
        ("int8 .tflite, LiteRT", measure.tflite_runner(tflite), 30),
        ("int8 .onnx, ONNX Runtime", measure.onnx_runner(onnx), 30),
        (
            "TensorFlow's int8 .tflite, LiteRT",
            measure.tflite_runner(models / "ad_autoencoder_reference_int8.tflite"),
            None,
        ),
        ("quantize_static's .onnx", measure.onnx_runner(peer), None),
        ("dynamic-range .tflite, LiteRT", measure.tflite_runner(_one(work / "ad_dynamic", "tflite")), None),
        ("dynamic-range .onnx, ONNX Runtime", measure.onnx_runner(_one(work / "ad_dynamic", "onnx")), None),
    ]
    if _old_runtime():
        runners += [
            ("int8 .tflite, tflite-runtime", measure.tflite_runner(tflite, OLD_RUNTIME), 30),
            (
                "dynamic-range .tflite, tflite-runtime",
                measure.tflite_runner(_one(work / "ad_dynamic", "tflite"), OLD_RUNTIME),
                None,
            ),
        ]
    for name, runner, low in runners:
        yield Line(f"autoencoder, {name}: signal-to-noise", measure.snr(runner, rows, expected), "dB", low)
    for name, file in (("int8 .tflite", tflite), ("int8 .onnx", onnx), ("quantize_static's .onnx", peer)):
        yield Line(f"autoencoder, {name}: size", file.stat().st_size, "bytes")


def _latency(name: str, ours: float, theirs: float, ratio: float) -> Iterator[Line]:
    yield Line(f"{name}: one inference (the peer's: {theirs:,.0f})", ours, "us")
    yield Line(f"{name}: latency, ours / the peer's", ratio, "", high=1.05)


def _quantize_static(model: Path, samples: np.ndarray, output: Path) -> Path:
    """ONNX Runtime's own quantization: its preparation pass, QDQ, int8, per channel, min/max ranges."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.samples, None)
            return None if sample is None else {name: sample[None].astype(np.float32)}

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    kinds = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(output), Reader(), per_channel=True, **kinds)
    return output


def _one(folder: Path, suffix: str) -> Path:
    (file,) = folder.glob(f"*.{suffix}")
    return file


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _old_runtime() -> bool:
    """tflite-runtime 2.14 is there, and can work: it is built against NumPy 1."""
    return importlib.util.find_spec("tflite_runtime") is not None and np.__version__.startswith("1.")


def _versions() -> str:
    from importlib.metadata import version

    packages = ["ai-edge-litert", "onnxruntime", "numpy"] + (["tflite-runtime"] if _old_runtime() else [])
    return ", ".join(f"{p} {version(p)}" for p in packages)


if __name__ == "__main__":
    sys.exit(main())
