"""Instructions per inference of programs for 64-bit Arm, counted in qemu-aarch64.

    EDGECOMPRESS_BENCH_DATA=DIR python tests/bench/aarch64.py

DIR as for cortex_m.py; needs qemu-aarch64 and aarch64-linux-gnu-gcc. "plain" has the kernels for any CPU. Every output
is compared with LiteRT's reference kernels, bit for bit. Exits 1 when one differs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from cortex_m import Network, autoencoder, resnet8
from rich.console import Console
from rich.table import Table

from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import Compiled, compile_plan
from edgecompress_runtime.building.c_header import bench_header
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.plan import Plan
from edgecompress_targets.aarch64.emulator import emulator_of
from edgecompress_targets.connection.driver import Measured
from edgecompress_targets.linux.platform import AARCH64


def main() -> int:
    folder = os.environ.get("EDGECOMPRESS_BENCH_DATA")
    if not folder:
        print(f"skipped: EDGECOMPRESS_BENCH_DATA is not set\n\n{__doc__}")
        return 0
    table, failed = Table("network", "kernels", "M instructions", "arena", ".text", "exact"), 0
    for network in (resnet8(Path(folder)), autoencoder(Path(folder))):
        for target, features in (("raspberry-pi", ()), ("raspberry-pi", None), ("raspberry-pi-5", None)):
            row, exact = measured(network, target, features)
            table.add_row(network.name, *row, "yes" if exact else "NO", style=None if exact else "red")
            failed += not exact
        table.add_section()
    Console(width=120).print(table)
    return 1 if failed else 0


def emulated(
    plan: Plan, records: np.ndarray, target: str, features: tuple[str, ...] | None = None
) -> tuple[Compiled, Measured]:
    """records: inputs, one after the other."""
    profile = load_target(target)
    machine = Machine(profile.triple, profile.cpu, profile.features if features is None else features)
    with tempfile.TemporaryDirectory() as work:
        compiled = compile_plan(plan, "model", machine)
        program = Path(work) / "model_run"
        linked = AARCH64.images("model", compiled.object, bench_header(compiled.program), profile)
        program.write_bytes(linked[program.name])
        program.chmod(0o755)
        return compiled, emulator_of(profile).counted(program, records.tobytes(), records[0].nbytes)


def measured(network: Network, target: str, features: tuple[str, ...] | None) -> tuple[list[str], bool]:
    compiled, run = emulated(network.plan, network.records, target, features)
    exact = np.array_equal(np.frombuffer(run.outputs, np.int8), network.expected.reshape(-1))
    millions = "too long" if not run.counts else f"{run.instructions / 1e6:.3f}"
    arena, kernels = f"{compiled.program.layout.size:,}", compiled.program.family
    return ["plain" if kernels == "generic" else kernels, millions, arena, f"{compiled.text:,}"], exact


if __name__ == "__main__":
    sys.exit(main())
