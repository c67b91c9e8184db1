"""What weights that stay entropy coded in flash cost on Cortex-M: bytes, and instructions for decoding them.

    EDGECOMPRESS_BENCH_DATA=FOLDER python tests/bench/coded_weights.py [CPU...]

FOLDER as in cortex_m.py. ResNet-8 is clustered to two sizes without training, as clustering.py does, and its .pack
is built with coded and with plain weights. Both run on 100 test images of CIFAR-10 in QEMU (10 on other CPUs than
the M4): every output is compared with this machine's runtime, bit for bit. Exits 1 when one differs, or decoding
takes more than 5 % of the M4's instructions.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from cortex_m import CPUS, emulated, module_at
from rich.console import Console
from rich.table import Table

import edgecompress
from edgecompress_runtime import load
from edgecompress_runtime.pack import read_pack

SIZES = (44_000, 22_000)  # bytes for all weights
LIMIT = {"cortex-m4": 5.0}  # percent of the instructions with plain weights


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    datasets = module_at(Path(folder) / "data" / "datasets.py")
    (train, _), (test, _) = datasets.load("cifar10", "train", 500), datasets.load("cifar10", "test", 100)
    columns = (".pack", "CPU", "M instructions", "coded", "+ %", "flash", "coded", "arena", "coded", "exact")
    table, failed = Table(*columns), 0
    for size in SIZES:
        with tempfile.TemporaryDirectory() as work:
            pack = clustered(Path(folder), train, size, Path(work))
            plan, model, bytes_ = read_pack(pack).plan(), load(pack), pack.stat().st_size
            x = plan.tensors[plan.inputs[0]]
            images = np.clip(np.round(test / x.scale[0]) + x.zero, -128, 127).astype(np.int8)
            expected = [model(image.reshape(x.shape)).tobytes() for image in images]
        for cpu in [a for a in sys.argv[1:] if not a.startswith("-")] or CPUS:
            count = 100 if cpu == "cortex-m4" else 10
            pairs = [emulated(plan, images[:count], cpu, coded=coded) for coded in (False, True)]
            exact = all(run.outputs == b"".join(expected[:count]) for _, run in pairs)
            (plain, before), (packed, after) = pairs
            more = 100 * (after.instructions / before.instructions - 1)
            good = exact and more <= LIMIT.get(cpu, float("inf"))
            failed += not good
            arenas = plain.program.layout.size, packed.program.layout.size
            sizes = [f"{n:,}" for n in (plain.flash, packed.flash, *arenas)]
            table.add_row(
                f"{bytes_:,}",
                cpu,
                f"{before.instructions / 1e6:.3f}",
                f"{after.instructions / 1e6:.3f}",
                f"{more:.2f}",
                *sizes,
                "yes" if exact else "NO",
                style=None if good else "red",
            )
        table.add_section()
    Console(width=120).print(table)
    return 1 if failed else 0


def clustered(folder: Path, calibration: np.ndarray, size: int, work: Path) -> Path:
    """The .pack of ResNet-8 with `size` bytes for its weights."""
    recipe = work / "recipe.toml"
    recipe.write_text(f'[cluster]\nbits = "auto"\nsize = {size}\n')
    result = edgecompress.convert(
        folder / "models" / "ic_resnet8.onnx",
        "cortex-m4",
        calib={"x": calibration},
        formats=["pack"],
        recipe=recipe,
        output=work / "out",
    )
    return work / "out" / result.report.artifacts[0].path


if __name__ == "__main__":
    sys.exit(main())
