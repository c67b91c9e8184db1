"""Runs firmware in qemu-system-arm, whose serial line is a socket; one instruction takes a nanosecond of its time."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgecompress_targets.connection.driver import Measured
from edgecompress_targets.connection.serial_port import Counter, SerialPort
from edgecompress_targets.cortex_m.boards import Board
from edgecompress_targets.tools import require, tied

QEMU = PACKAGE = "qemu-system-arm"


class EmulatorProcess:
    """QEMU with an ELF file, which waits until something connects to `url`.

    options: QEMU's, beside those for the board. Raises MissingToolError.
    """

    def __init__(self, elf: Path, board: Board, *, options: Sequence[str] = ("-monitor", "none")) -> None:
        require(QEMU, PACKAGE)
        port = _free_port()
        self.url = f"socket://127.0.0.1:{port}"
        command = [
            QEMU,
            "-M",
            board.machine,
            "-kernel",
            str(elf),
            "-icount",
            "shift=0",
            "-display",
            "none",
            "-serial",
            f"tcp:127.0.0.1:{port},server=on,wait=on,nodelay=on",
            *options,
        ]
        self._reason = "it gave no reason"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (the process writes to it while it lives)
        try:
            self._process = subprocess.Popen(
                tied(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said
            )
        except BaseException:
            self._said.close()
            raise

    def ended(self) -> str | None:
        """What QEMU printed when it ended by itself; None while it runs."""
        if self._process.poll() is None:
            return None
        if not self._said.closed:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").splitlines()
            self._reason = next((line for line in said if line), self._reason)
        return f"{QEMU} ended: {self._reason}"

    def close(self) -> None:
        """Ends QEMU and waits until it is gone. May be called again."""
        self._process.kill()
        self._process.wait()
        self.ended()
        self._said.close()


def run(
    elf: Path, inputs: bytes, board: Board, *, timeout: float = 120, options: Sequence[str] = ("-monitor", "none")
) -> Measured:
    """Runs all records of the model's inputs; instructions are counted to a tick of SysTick.

    timeout: seconds for one inference. options: QEMU's. Raises ToolError.
    """
    process = EmulatorProcess(elf, board, options=options)
    try:
        port = emulated_port(elf.name, process, board, inference_patience=timeout)
        try:
            return port.measure(inputs)
        finally:
            port.close()
    finally:
        process.close()


def emulated_port(
    name: str, process: EmulatorProcess, board: Board, *, patience: float = 20, inference_patience: float = 300
) -> SerialPort:
    """The serial line to an emulated board. name: the device's name in messages."""
    return SerialPort(
        name,
        process.url,
        patience=patience,
        inference_patience=inference_patience,
        counter=Counter(board.instructions_per_tick, "instructions"),
        ended=process.ended,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
