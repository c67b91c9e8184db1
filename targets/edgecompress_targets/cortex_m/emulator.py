"""Runs firmware in qemu-system-arm and counts instructions."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgecompress_targets.cortex_m.boards import Board

QEMU = "qemu-system-arm"


class EmulatorError(RuntimeError):
    """QEMU is missing, failed, or did not end in time."""


@dataclass(frozen=True)
class Run:
    """outputs: the records' outputs, one after the other. instructions: of the last inference, to a tick of
    SysTick. stack: bytes used at most. steps: instructions of each step, for profiled firmware."""

    outputs: bytes
    instructions: int
    stack: int
    steps: tuple[int, ...]


def run(elf: Path, inputs: bytes, board: Board, *, timeout: float = 120) -> Run:
    """inputs: records of the model's inputs. Raises EmulatorError."""
    if shutil.which(QEMU) is None:
        raise EmulatorError(f"{QEMU} is not installed; on Debian: apt install qemu-system-arm")
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "inputs.bin").write_bytes(inputs)
        command = [QEMU, "-M", board.machine, "-kernel", str(elf.resolve()), "-icount", "shift=0", "-display", "none",
                   "-serial", "none", "-monitor", "none", "-semihosting-config", "enable=on,target=native"]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise EmulatorError(f"{elf} did not end within {timeout} s") from None
        if done.returncode:
            raise EmulatorError(f"{elf} ended with code {done.returncode}: {done.stderr.strip()}")
        outputs = (Path(work) / "outputs.bin").read_bytes()
    told: dict[str, list[int]] = {}
    for line in done.stderr.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdecimal():
            told.setdefault(name, []).append(int(value))
    steps = tuple(round(n * board.instructions_per_tick) for n in told.get("step", []))
    return Run(outputs, round(told["ticks"][0] * board.instructions_per_tick), told["stack"][0], steps)
