"""Cycles of Cortex-M0, M3 and M4 by layer, as the manuals give them: QEMU runs the firmware, cycles.c adds them up.

    python tests/bench/cycles.py FILE.pack [CPU]

Needs qemu-system-arm, arm-none-eabi-gcc and gcc. The model is that of cycles.c, whose first lines say what it leaves
out; no board has confirmed it. CPU: cortex-m4 by default. Inputs are random.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from edgecompress.targets import load_target
from edgecompress_runtime.building.ahead_of_time import compile_plan
from edgecompress_runtime.building.c_header import bench_header
from edgecompress_runtime.codegen.interface import HOOK, Interface
from edgecompress_runtime.llvm.cross import Machine
from edgecompress_runtime.pack import read_pack
from edgecompress_runtime.plan import Plan
from edgecompress_targets.cortex_m import emulator
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.firmware_image import link

PLUGIN = Path(__file__).with_suffix(".c")
CPUS = {"cortex-m0": "m0", "cortex-m3": "m3", "cortex-m4": "m4"}  # those whose manuals give cycles


@dataclass(frozen=True)
class Count:
    """Of one step of a program."""

    instructions: int
    cycles: int


def plugin(elf: Path, cpu: str, mark: str, work: Path) -> tuple[list[str], Path]:
    """QEMU's options for a log of what was executed whenever the function `mark` begins, and the log."""
    library, log = work / "cycles.so", work / "log"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, PLUGIN], check=True)
    return ["-plugin", f"file={library},cpu={CPUS[cpu]},mark={_address(elf, mark)},out={log}"], log


def counts(log: Path) -> list[Count]:
    """Between each two executions of the function."""
    totals = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    return [Count(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(totals)]


def by_step(plan: Plan, record: bytes, cpu: str) -> tuple[Interface, list[Count]]:
    """Of one inference, the calls of the function between the steps included."""
    profile = load_target(cpu)
    with tempfile.TemporaryDirectory() as work:
        elf = Path(work) / "model.elf"
        compiled = compile_plan(plan, "model", Machine(profile.triple, cpu, profile.features), profile=True)
        header = bench_header(compiled.program, profiled=True)
        link(compiled.object, header, BOARDS[cpu], cpu=cpu, hard_float=profile.triple.endswith("hf"), to=elf)
        options, log = plugin(elf, cpu, HOOK, Path(work))
        emulator.run(elf, record, BOARDS[cpu], timeout=600, options=["-monitor", "none", *options])
        return compiled.program, counts(log)


def _address(elf: Path, symbol: str) -> str:
    lines = subprocess.run(["arm-none-eabi-nm", elf], check=True, capture_output=True, text=True).stdout.splitlines()
    return next(f"0x{line.split()[0]}" for line in lines if line.split()[-1] == symbol)


def main(file: str, cpu: str = "cortex-m4") -> None:
    plan = read_pack(file).plan()
    size = sum(plan.tensors[i].size * plan.tensors[i].dtype.itemsize for i in plan.inputs)
    program, found = by_step(plan, np.random.default_rng(0).bytes(size), cpu)
    steps = zip(program.steps, found, strict=True)
    for operator, own in groupby(steps, lambda step: step[0]):
        spent = [count for _, count in own]
        instructions, cycles = sum(c.instructions for c in spent), sum(c.cycles for c in spent)
        name = program.plan.tensors[operator.outputs[0]].name
        print(f"{operator.kind:18} {instructions:12,} {cycles:12,} {cycles / instructions:6.2f}  {name}")
    instructions, cycles = sum(c.instructions for c in found), sum(c.cycles for c in found)
    print(f"{'all':18} {instructions:12,} {cycles:12,} {cycles / instructions:6.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
