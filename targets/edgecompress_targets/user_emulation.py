"""Runs a Linux program for another CPU in QEMU's user-mode emulator, and counts its instructions."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from edgecompress_targets.connection.driver import DeviceError, Measured
from edgecompress_targets.tools import require, tied
from edgecompress_targets.work_folder import work_folder

PACKAGE = "qemu-user"
COUNTING = 60.0  # seconds at most


@dataclass(frozen=True)
class UserEmulator:
    """QEMU's emulator `qemu` of Linux programs for another processor, `cpu`."""

    qemu: str
    cpu: str

    def run(self, program: Path, inputs: bytes, *, timeout: float = 120) -> Measured:
        """Runs `PROGRAM INPUTS OUTPUTS` on records of the model's inputs. Raises ToolError."""
        require(self.qemu, PACKAGE)
        with work_folder() as work:
            command = self._command(program, inputs, work)
            try:
                done = subprocess.run(tied(command), capture_output=True, text=True, timeout=timeout)
            except subprocess.TimeoutExpired:
                raise DeviceError(f"{program} did not end within {timeout:g} s") from None
            if done.returncode:
                raise DeviceError(f"{program} ended with code {done.returncode}: {done.stderr.strip()}")
            return Measured((Path(work) / "outputs.bin").read_bytes(), (), "instructions")

    def counted(self, program: Path, inputs: bytes, record: int, *, timeout: float = 120) -> Measured:
        """Runs as `run` does, and counts the instructions of the first record, which has `record` bytes."""
        count = self.instructions(program, inputs[:record])
        return replace(self.run(program, inputs, timeout=timeout), counts=() if count is None else (count,))

    def instructions(self, program: Path, record: bytes, *, timeout: float = COUNTING) -> int | None:
        """The instructions of one inference, with reading its inputs and writing its outputs: what a second inference
        adds.

        None where QEMU's log of a run is not read within `timeout` seconds.
        """
        until = time.monotonic() + timeout
        one, two = (self._executed(program, record * count, until) for count in (1, 2))
        return None if one is None or two is None else two - one

    def _executed(self, program: Path, inputs: bytes, until: float) -> int | None:
        """Counts instructions in QEMU's log, which has each block's instructions when it is translated and its address
        when it runs.
        """
        require(self.qemu, PACKAGE)
        sizes: dict[int, int] = {}
        runs: Counter[bytes] = Counter()
        block = None
        with work_folder() as work:
            command = self._command(program, inputs, work, "-d", "in_asm,exec,nochain")
            with subprocess.Popen(tied(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    if line.startswith(b"Trace"):
                        runs[line.split(b"/", 2)[1]] += 1
                    elif line.startswith(b"0x"):
                        if block is None:
                            block = int(line.split(b":", 1)[0], 16)
                            sizes[block] = 0
                        sizes[block] += 1
                    else:
                        block = None
                    if time.monotonic() > until:
                        process.kill()
                        return None
        return sum(count * sizes[int(place, 16)] for place, count in runs.items())

    def _command(self, program: Path, inputs: bytes, work: str, *options: str) -> list[str]:
        source = Path(work) / "inputs.bin"
        source.write_bytes(inputs)
        return [self.qemu, "-cpu", self.cpu, *options, str(program.resolve()), str(source), f"{work}/outputs.bin"]
