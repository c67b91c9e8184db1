"""Drives a Cortex-M board in QEMU through the driver for serial lines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from edgecompress_targets.connection.driver import Advance, DeviceError, Found, Measured, Program
from edgecompress_targets.connection.serial_port import SerialPort
from edgecompress_targets.cortex_m.boards import BOARDS
from edgecompress_targets.cortex_m.emulator import PACKAGE, QEMU, EmulatorProcess, emulated_port
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.profile import Profile
from edgecompress_targets.tools import ToolError, require, version
from edgecompress_targets.work_folder import work_folder


class EmulatedBoardSettings(Settings):
    """A board that QEMU emulates: a table of devices.toml with driver = "emulator"."""

    driver: Literal["emulator"] = "emulator"
    cpu: str = Field(description=f"one of {', '.join(BOARDS)}")

    @field_validator("cpu")
    @classmethod
    def _known(cls, cpu: str) -> str:
        if cpu not in BOARDS:
            raise ValueError(f"should be one of {', '.join(BOARDS)}")
        return cpu

    def can_be(self, target: Profile) -> bool:
        return target.cpu == self.cpu

    @property
    def runs(self) -> str:
        return "firmware"

    @property
    def emulated(self) -> bool:
        return True

    def open(self, name: str) -> EmulatedBoard:
        return EmulatedBoard(name, self)


class EmulatedBoard:
    """A driver (`driver.Driver`): `deploy` starts QEMU, `remove` ends it."""

    def __init__(self, name: str, settings: EmulatedBoardSettings) -> None:
        self._name, self._settings, self._board = name, settings, BOARDS[settings.cpu]
        self._process: EmulatorProcess | None = None
        self._port: SerialPort | None = None

    def probe(self) -> Found:
        try:
            require(QEMU, PACKAGE)
        except ToolError as error:
            raise DeviceError(f"{self._name}: {error}") from error
        return Found(f"{self._board.machine} in {QEMU} {version(QEMU)}")

    def deploy(self, program: Program) -> None:
        self.probe()
        self.close()
        with work_folder() as work:
            image = Path(work) / program.start[0]
            image.write_bytes(program.files[program.start[0]])
            try:
                self._process = EmulatorProcess(image, self._board)
                self._port = emulated_port(
                    self._name,
                    self._process,
                    self._board,
                    patience=self._settings.timeout,
                    inference_patience=self._settings.inference_timeout,
                )
                self._port.require(program)  # it answers, so QEMU has read the file
            except BaseException:
                self.close()
                raise

    def run(self, program: Program, inputs: bytes, advance: Advance | None = None) -> Measured:
        if self._port is None:
            raise DeviceError(f"{self._name}: no program is running on it")
        return self._port.measure(inputs, advance)

    def keep(self, program: Program) -> None:
        """Does nothing: no program outlives the emulator."""

    def remove(self, program: Program) -> None:
        self.close()

    def close(self) -> None:
        if self._port is not None:
            self._port.close()
        if self._process is not None:
            self._process.close()
        self._port = self._process = None
