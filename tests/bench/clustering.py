"""ResNet-8 clustered and entropy coded without training: size of the whole `.pack` against top-1 on disk.

    EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/clustering.py [SIZE...]

FOLDER as in resnet8.py. SIZE: bytes for all weights (`[cluster] size`); default: a few. Each is a whole
`convert` calibrated on 500 training images, its `.pack` run by edgecompress-runtime on all 10,000 test images.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import edgecompress

SIZES = (44_000, 36_000, 29_500, 22_000)
LIMITS = ((52_000, 1.0), (44_000, 3.0))  # bytes of a pack, points below float that it may be


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if folder is None:
        print("skipped: EDGECOMPRESS_BENCH_DATA does not name the folder with models/ and data/")
        return 0
    spec = importlib.util.spec_from_file_location("datasets", Path(folder) / "data" / "datasets.py")
    assert spec is not None and spec.loader is not None
    datasets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(datasets)
    (train, _), (test, labels) = datasets.load("cifar10", "train", 500), datasets.load("cifar10", "test")
    found = []
    print(f"{'weights asked':>13}  {'pack':>8}  {'top-1':>6}  {'float':>6}  agrees")
    for size in [int(text) for text in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory() as output:
            recipe = Path(output) / "recipe.toml"
            recipe.write_text(f'[cluster]\nbits = "auto"\nsize = {size}\n')
            result = edgecompress.convert(
                Path(folder) / "models" / "ic_resnet8.onnx",
                "linux-x86",
                calib={"x": train},
                eval={"x": test, "y": labels.astype(np.int64)},
                formats=["pack"],
                recipe=recipe,
                output=Path(output) / "out",
            )
        pack = result.report.artifacts[0]
        check = pack.checks[0]
        found.append((pack.bytes, check.reference_value - check.value))
        print(
            f"{size:13,}  {pack.bytes:8,}  {check.value:6.2f}  {check.reference_value:6.2f}  "
            f"{check.agreement_percent:.2f}",
            flush=True,
        )
    missed = [limit for limit in LIMITS if not any(b <= limit[0] and drop <= limit[1] for b, drop in found)]
    for most, drop in missed:
        print(f"no pack of at most {most:,} bytes within {drop:g} points")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
