"""Runs a Linux program for 64-bit Arm in qemu-aarch64, which counts no instructions."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from edgecompress_targets.drivers.driver import DeviceError, Measured
from edgecompress_targets.tools import require

QEMU, PACKAGE = "qemu-aarch64", "qemu-user"
CPU = "cortex-a53"  # Armv8.0: what the profiles promise, and nothing newer


def run(program: Path, inputs: bytes, *, timeout: float = 120) -> Measured:
    """inputs: records of the model's inputs. Raises ToolError."""
    require(QEMU, PACKAGE)
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work) / "inputs.bin", Path(work) / "outputs.bin"
        source.write_bytes(inputs)
        command = [QEMU, "-cpu", CPU, str(program.resolve()), str(source), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{program} did not end within {timeout:g} s") from None
        if done.returncode:
            raise DeviceError(f"{program} ended with code {done.returncode}: {done.stderr.strip()}")
        return Measured(target.read_bytes(), (), "instructions")
