"""Runs firmware in qemu-system-arm and counts instructions."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from edgecompress_targets.cortex_m.boards import Board
from edgecompress_targets.emulation import EmulatorError, Run
from edgecompress_targets.tools import require

QEMU = PACKAGE = "qemu-system-arm"


def run(elf: Path, inputs: bytes, board: Board, *, timeout: float = 120) -> Run:
    """inputs: records of the model's inputs. Instructions are counted to a tick of SysTick. Raises ToolError."""
    require(QEMU, PACKAGE)
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "inputs.bin").write_bytes(inputs)
        command = [QEMU, "-M", board.machine, "-kernel", str(elf.resolve()), "-icount", "shift=0", "-display", "none",
                   "-serial", "none", "-monitor", "none", "-semihosting-config", "enable=on,target=native"]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise EmulatorError(f"{elf} did not end within {timeout:g} s") from None
        if done.returncode:
            raise EmulatorError(f"{elf} ended with code {done.returncode}: {done.stderr.strip()}")
        outputs = (Path(work) / "outputs.bin").read_bytes()
    told: dict[str, list[int]] = {}
    for line in done.stderr.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdecimal():
            told.setdefault(name, []).append(int(value))
    counts, steps = (
        tuple(round(n * board.instructions_per_tick) for n in told.get(name, [])) for name in ("ticks", "step")
    )
    return Run(outputs, counts, told["stack"][0], steps)
