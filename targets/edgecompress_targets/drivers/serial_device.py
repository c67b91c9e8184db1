"""Drives a microcontroller on a serial line, which a debug probe or a boot loader flashes by a command of the
user's.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgecompress_targets.connection.driver import Advance, DeviceError, Found, Measured, Program
from edgecompress_targets.connection.flash_image import Part, parts
from edgecompress_targets.connection.serial_port import SerialPort
from edgecompress_targets.drivers import flash_commands
from edgecompress_targets.drivers.flash_commands import COMMANDS
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.profile import Profile
from edgecompress_targets.work_folder import work_folder


class SerialSettings(Settings):
    """A microcontroller on a serial line: a table of devices.toml with driver = "serial"."""

    driver: Literal["serial"] = "serial"
    port: str = Field(description="device file (/dev/ttyACM0), or a URL of pyserial's (socket://HOST:PORT)")
    baud: int = Field(115_200, gt=0, description="bits a second")
    flash: tuple[str, ...] = Field(
        (),
        description=f"command that flashes it: {', '.join(COMMANDS)}, or the words of another command, with {{image}}, "
        "{chip}, {port} and {probe} in them; unset: by hand",
    )
    chip: str | None = Field(None, min_length=1, description="name of the chip, as the flash command spells it")
    probe: str | None = Field(None, min_length=1, description="serial number of its debug probe, if there are several")
    flash_timeout: float = Field(120, gt=0, description="largest number of seconds for flashing")
    make: tuple[str, ...] = Field(
        (),
        description="command that makes the board's image from serve.c and the files that `build` wrote, all in "
        "{folder}; unset: the image for the board that QEMU emulates",
    )
    image: str = Field("", description="the image that `make` writes; the path may start with {folder}")

    @field_validator("flash", mode="before")
    @classmethod
    def _named(cls, flash: object) -> object:
        if not isinstance(flash, str):
            return flash
        if flash not in COMMANDS:
            raise ValueError(f"should be one of {', '.join(COMMANDS)}, or a command as a list of words")
        return (flash,)

    @model_validator(mode="after")
    def _complete(self) -> SerialSettings:
        if self.chip is None and flash_commands.needs(self.flash, "chip"):
            raise ValueError(f"key 'chip' is missing: {self.flash[0]} needs it")
        return self

    def can_be(self, target: Profile) -> bool:
        return "-none-" in target.triple

    @property
    def runs(self) -> str:
        return "firmware"

    @property
    def flash_words(self) -> tuple[str, ...]:
        """The words of the flash command, in which {image} is still to be filled in."""
        return flash_commands.words(self.flash, {"chip": self.chip, "port": self.port, "probe": self.probe})

    @property
    def resource(self) -> str:
        return self.port

    def open(self, name: str) -> SerialDevice:
        port = SerialPort(
            name, self.port, baud=self.baud, patience=self.timeout, inference_patience=self.inference_timeout
        )
        return SerialDevice(name, port, flash=self.flash_words, flash_timeout=self.flash_timeout)


class SerialDevice:
    """A driver (`driver.Driver`) for a board on a serial line.

    flash: the words of a command in which {image} stands for the file; empty where the program is there already.
    """

    def __init__(self, name: str, port: SerialPort, *, flash: Sequence[str] = (), flash_timeout: float = 120) -> None:
        self._name, self._port, self._flash, self._flash_timeout = name, port, tuple(flash), flash_timeout

    def probe(self) -> Found:
        if self._flash:  # what is there now may be anything
            return Found(f"flashed by {self._flash[0]}")
        return Found(f"edgecompress firmware with model {self._port.session.hello.digest[:12]}")

    def deploy(self, program: Program) -> None:
        if self._flash:
            self._port.close()
            self._write_flash(program)
        self._port.require(program)
        if self._flash:  # else the board may have another build of the same model
            self._port.require_flash(self._parts(program))

    def run(self, program: Program, inputs: bytes, advance: Advance | None = None) -> Measured:
        return self._port.measure(inputs, advance)

    def keep(self, program: Program) -> None:
        """Does nothing: the program stays in flash in any case."""

    def remove(self, program: Program) -> None:
        """Does nothing: the program stays in flash."""

    def close(self) -> None:
        self._port.close()

    def _parts(self, program: Program) -> list[Part]:
        """The parts of the program's file; empty when it does not say where they go, and the model's digest has to
        do.
        """
        try:
            return parts(program.start[0], program.files[program.start[0]]) or []
        except ValueError as error:
            raise DeviceError(f"{self._name}: {error}") from error

    def _write_flash(self, program: Program) -> None:
        with work_folder() as work:
            image = Path(work) / program.start[0]
            image.write_bytes(program.files[program.start[0]])
            words = [word.replace("{image}", str(image)) for word in self._flash]
            if shutil.which(words[0]) is None:
                raise DeviceError(f"{self._name}: its flash command {words[0]!r} is not installed")
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=self._flash_timeout)
            except subprocess.TimeoutExpired:
                raise DeviceError(
                    f"{self._name}: {words[0]} did not end within {self._flash_timeout:g} s: is the probe connected?"
                ) from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            raise DeviceError(f"{self._name}: {words[0]} failed: {said[-1]}")
