"""Layers of weights that are -1 and 1, or -1, 0 and 1, beside int8 and 4-bit codebooks: emulated CPUs, and this one.

    python tests/bench/binary_weights.py [CPU, target or "here"...]

Instructions of a layer, how many times fewer they are than with int8, bytes of flash (code and constants) and of the
arena. "4 bits": sixteen values, as a layer has them that was clustered with 4 bits. A third of ternary weights are
zero. CPUs, emulators and their counts are those of skipping.py. "here": microseconds of a call, the best of 60 rounds
in turn, with the vectors that this machine has. Every output is compared with the plain kernels', bit for bit. Exits 1
when one differs, or a layer of binary or ternary weights takes more instructions than one of 4 bits.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from skipping import LINUX, emulated_layer, layer_plan

from edgecompress_runtime import load
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.x86.variants import available
from edgecompress_runtime.pack import write_pack

CPUS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m55")
# height, width and channels of x, window, output channels
LAYERS = (
    ("CONV_2D", (8, 8, 64), (1, 1), 64),
    ("CONV_2D", (16, 16, 32), (3, 3), 32),
    ("FULLY_CONNECTED", (1, 1, 640), (1, 1), 128),
)
KINDS = {"int8": range(-127, 128), "4 bits": range(-120, 121, 16), "ternary": (-1, 0, 1), "binary": (-1, 1)}
ROUNDS, CALLS = 60, 20
Measured = Callable[[str, tuple[int, ...], list[np.ndarray]], tuple[list[str], bool]]


def main() -> int:
    failed, console = 0, Console(width=140)
    for cpu in sys.argv[1:] or (*CPUS, *LINUX, "here"):
        for name, measured in variants_of(cpu):
            table = Table("layer", *KINDS, title=name)
            for layer in LAYERS:
                kind, size, window, outputs = layer
                random = np.random.default_rng(0)
                weights = [random.choice(v, (outputs, *window, size[-1])).astype(np.int8) for v in KINDS.values()]
                cells, good = measured(kind, size, weights)
                failed += not good
                table.add_row(f"{kind} {size[-1]} to {outputs}", *cells, style=None if good else "red")
            console.print(table)
    return 1 if failed else 0


def variants_of(cpu: str) -> list[tuple[str, Measured]]:
    """(title, how a layer is measured)"""
    if cpu == "here":
        return [(f"{v.name}: us", partial(timed, v.name)) for v in available() if v.needs]
    return [(f"{cpu}: instructions, flash, arena", partial(counted, cpu))]


def counted(cpu: str, kind: str, size: tuple[int, ...], weights: list[np.ndarray]) -> tuple[list[str], bool]:
    """(for each weights a cell, whether all is as it should be)"""
    cells, counts, good = [], [], True
    for w in weights:
        compiled, run, exact = emulated_layer(cpu, kind, size, w)
        counts.append(run.instructions)
        times = counts[0] / run.instructions
        cells.append(f"{run.instructions:,} ({times:.2f}), {compiled.flash:,}, {compiled.program.layout.size:,}")
        good &= exact
    return cells, good and max(counts[2:]) <= counts[1]


def timed(variant: str, kind: str, size: tuple[int, ...], weights: list[np.ndarray]) -> tuple[list[str], bool]:
    """The same on this machine."""
    x, best, good = np.random.default_rng(1).integers(-128, 128, size).astype(np.int8), [np.inf] * len(weights), True
    with tempfile.TemporaryDirectory() as work:
        models = []
        for number, w in enumerate(weights):
            plan, path = layer_plan(kind, size, w), Path(work) / f"{number}.pack"
            path.write_bytes(write_pack(plan, "model"))
            models.append(load(path, variant=variant))
            x = x.reshape(plan.tensors[0].shape)
            good &= np.array_equal(models[-1](x), Executor(plan)(x)[0])
        for _ in range(ROUNDS):
            for number, model in enumerate(models):
                start = time.perf_counter()
                for _ in range(CALLS):
                    model(x)
                best[number] = min(best[number], (time.perf_counter() - start) / CALLS)
    return [f"{1e6 * b:.1f} ({best[0] / b:.2f})" for b in best], good


if __name__ == "__main__":
    sys.exit(main())
