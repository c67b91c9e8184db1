"""The runtime on this machine, one thread: ResNet-8 against LiteRT and ONNX Runtime.

    EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/host_latency.py

FOLDER: as for resnet8.py. Latencies of both sides are taken in turn, in the same run, and compared as ratios: from an
array to an array, and against LiteRT's `invoke()` alone. Exits 1 when a line misses its limit.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import measure
import numpy as np
from resnet8 import Line, _module, _one
from rich.console import Console
from rich.table import Table

import edgecompress_runtime
from edgecompress_runtime.families.x86.variants import available

MACS = 12.50e6  # of ResNet-8
# the most that a variant may take, in the time of LiteRT, which uses all that the CPU has
LIMITS = {"avx512_vbmi": 1.0, "avx512_vnni": 1.0, "avx_vnni": 1.0}
AVX2_ONLY = 1.5  # and where both have AVX2 alone
START = """
import sys, time
start = time.perf_counter()
import numpy as np
from edgecompress_runtime import load
model = load(sys.argv[1])
model(np.zeros(model.inputs[0].shape, model.inputs[0].dtype))
print(time.perf_counter() - start, "numba" in sys.modules)
"""


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    variants = ", ".join(v.name for v in available())
    table = Table("measured", "value", "limit", "holds", title=f"host, one thread; this CPU has {variants}")
    failed = 0
    for line in resnet8(Path(folder) / "models", Path(folder) / "data"):
        table.add_row(*line.cells(), style=None if line.holds else "red")
        failed += not line.holds
    Console(width=110).print(table)
    return 1 if failed else 0


def resnet8(models: Path, data: Path) -> Iterator[Line]:
    images, _ = _module(data / "datasets.py").load("cifar10", "train", 201)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        np.savez(work / "calib.npz", x=images[:200])
        (work / "all.toml").write_text('[emit]\nformats = ["pack", "tflite", "onnx"]\n')
        measure.convert(
            models / "ic_resnet8.onnx",
            "--target",
            "android",
            "--recipe",
            work / "all.toml",
            "--calib",
            work / "calib.npz",
            "-o",
            work / "out",
        )
        pack, tflite, onnx = (_one(work / "out", suffix) for suffix in ("pack", "tflite", "onnx"))
        os.environ["NUMBA_CACHE_DIR"] = str(work / "cache")  # so that first calls are first calls
        pixels = images[200].transpose(2, 0, 1)
        x = images[200][None].astype(np.float32)
        litert, invoke = measure.tflite_caller(tflite, pixels), measure.tflite_invoker(tflite, pixels)
        ort = measure.onnx_runner(onnx)
        for variant in available():
            model = edgecompress_runtime.load(pack, variant=variant.name)
            model(x)
            yield Line(f"{variant.name}: first call, compiling", model.compile_seconds, "s")
            ours, theirs, ratio = measure.latency_ratio(lambda: model(x), litert)  # noqa: B023 (called here)
            yield Line(f"{variant.name}: one inference", ours, "us")
            yield Line(f"{variant.name}: MACs, layers around convolutions included", MACS / ours / 1e3, "GMAC/s")
            yield Line(f"{variant.name}: ours / LiteRT's ({theirs:.0f} us)", ratio, "", high=LIMITS.get(variant.name))
            _, theirs, ratio = measure.latency_ratio(lambda: model(x), invoke)  # noqa: B023
            yield Line(f"{variant.name}: ours / LiteRT's invoke() alone ({theirs:.0f} us)", ratio, "")
            _, theirs, ratio = measure.latency_ratio(lambda: model(x), lambda: ort(pixels))  # noqa: B023
            yield Line(f"{variant.name}: ours / ONNX Runtime's ({theirs:.0f} us)", ratio, "")
        if platform.machine() == "x86_64" and shutil.which("gcc") and shutil.which("objdump"):
            script = Path(__file__).with_name("avx2_only.py")
            done = subprocess.run([sys.executable, script, tflite, pack], capture_output=True, text=True, check=True)
            _, theirs, ratio = map(float, done.stdout.split())
            yield Line(f"avx2: ours / LiteRT's, which sees AVX2 alone ({theirs:.0f} us)", ratio, "", high=AVX2_ONLY)
        starts = [_start(pack) for _ in range(5)]
        yield Line("second start: imports to first result", float(np.median([s for s, _ in starts])), "s", high=0.5)
        yield Line("second start: starts that import Numba", sum(n for _, n in starts), "", high=0)


def _start(pack: Path) -> tuple[float, bool]:
    done = subprocess.run([sys.executable, "-c", START, str(pack)], capture_output=True, text=True, check=True)
    seconds, numba = done.stdout.split()
    return float(seconds), numba == "True"


if __name__ == "__main__":
    started = time.perf_counter()
    code = main()
    print(f"{time.perf_counter() - started:.0f} s")
    sys.exit(code)
