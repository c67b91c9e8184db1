"""MLPerf Tiny's ResNet-8 through the `smallest` preset: bytes of the .pack, top-1 on the host and on an emulated M4.

    EDGECOMPRESS_BENCH_DATA=folder python tests/bench/smallest.py [THREADS]

folder holds models/ic_resnet8.onnx and data/ (CIFAR-10 and datasets.py). Trains on the 50,000 training images, mirrored
and moved, seed 0; evaluates on the 10,000 test images, and 100 of them on QEMU's Cortex-M4 board.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import edgecompress
from edgecompress.devices.bench import bench
from edgecompress.devices.firmware import build
from edgecompress.recipe import load_recipe

LARGEST, LEAST = 30_000, 86.0


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    import torch

    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    sys.path.insert(0, str(Path(folder) / "data"))
    import datasets

    recipe = load_recipe("smallest")
    recipe.train.augment, recipe.train.precision = "flip-crop", "mixed"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        x, y = datasets.load("cifar10", "test")
        np.savez(work / "test.npz", x=x, y=y)
        start = time.perf_counter()
        result = edgecompress.convert(
            Path(folder) / "models" / "ic_resnet8.onnx",
            "cortex-m4",
            train=datasets.load("cifar10", "train"),
            eval=work / "test.npz",
            recipe=recipe,
            formats=["pack"],
            output=work / "out",
        )
        wall = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(result)
        for stage in result.report.stages:
            accuracy = "" if stage.accuracy is None else f"{stage.accuracy:.2f} %"
            print(f"{stage.name:30}{stage.wall_seconds:8.1f} s  {accuracy:9} {stage.note}")
        (artifact,) = result.report.artifacts
        value = artifact.checks[0].value
        print(f"\n.pack: {artifact.bytes:,} bytes (at most {LARGEST:,}), top-1 {value:.2f} % (at least {LEAST})")
        print(f"{wall / 60:.1f} minutes, {(used.ru_utime + used.ru_stime) / 60:.1f} CPU minutes")
        print(build(result.artifacts["pack"], "cortex-m4", output=work / "firmware"))
        measured = bench(work / "firmware", eval=work / "test.npz", runs=100)
        print(measured)
        return 0 if artifact.bytes <= LARGEST and value >= LEAST and measured.ok else 1


if __name__ == "__main__":
    sys.exit(main())
