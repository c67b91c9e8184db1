"""Drives this machine: its own Python, or programs for another CPU in an emulator."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgecompress_runtime.families.x86.variants import AVX512_VNNI, available
from edgecompress_targets.connection.driver import DeviceError
from edgecompress_targets.drivers.linux import LinuxDevice, Timeouts
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.profile import Profile
from edgecompress_targets.tools import tied
from edgecompress_targets.user_emulation import UserEmulator
from edgecompress_targets.work_folder import work_folder

CPU = "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2"


def _this_machine() -> str:
    """The name of the profile that has the most of this CPU's features."""
    if platform.machine() == "aarch64":
        return "raspberry-pi"
    return "linux-x86-vnni" if AVX512_VNNI in available() else "linux-x86"


class LocalSettings(Settings):
    """This machine: a table of devices.toml with driver = "local"."""

    driver: Literal["local"] = "local"
    target: str = Field(default_factory=_this_machine, description="its profile")
    prefix: tuple[str, ...] = Field((), description="words in front of a program, such as an emulator of the target")

    def can_be(self, target: Profile) -> bool:
        """Whether this machine can stand for the target, which it always can with an emulator."""
        return bool(self.prefix) or super().can_be(target)

    @property
    def python(self) -> str | None:
        return None if self.prefix else sys.executable

    @property
    def formats(self) -> tuple[str, ...]:
        return ("pack",) if self.prefix else ("pack", "tflite", "onnx")

    @property
    def emulated(self) -> bool:
        return bool(self.prefix)

    def open(self, name: str) -> LinuxDevice:
        shell = LocalShell(name)
        return LinuxDevice(
            name,
            shell,
            shell.root,
            prefix=self.prefix,
            timeouts=Timeouts(self.timeout, self.inference_timeout),
            facts=[("cpu", CPU)],
            instructions=self._instructions,
        )

    def _instructions(self, file: str, record: bytes) -> int | None:
        """The instructions of one inference from QEMU's log; None with other emulators."""
        if len(self.prefix) != 3 or not self.prefix[0].startswith("qemu-") or self.prefix[1] != "-cpu":
            return None
        return UserEmulator(self.prefix[0], self.prefix[2]).instructions(Path(file), record)


class LocalShell:
    """A shell (`linux.Shell`) on this machine. root: a temporary folder, which `close` removes."""

    def __init__(self, name: str) -> None:
        self._name, self._closing = name, ExitStack()
        self.root = self._closing.enter_context(work_folder())

    def execute(self, command: str, timeout: float) -> tuple[int, bytes, bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            tied(["/bin/sh", "-c", command]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            out, error = process.communicate(timeout=timeout)
        except BaseException as failure:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(failure, subprocess.TimeoutExpired):
                raise DeviceError(f"{self._name}: the program did not end within {timeout:.0f} s") from None
            raise
        return process.returncode, out, error

    def push(self, content: bytes, path: str) -> None:
        try:
            Path(path).write_bytes(content)
        except OSError as error:
            raise DeviceError(f"{self._name}: {path}: {error.strerror}") from error

    def pull(self, path: str, most: int) -> bytes:
        try:
            with Path(path).open("rb") as file:
                content = file.read(most + 1)
        except OSError as error:
            raise DeviceError(f"{self._name}: {path}: {error.strerror}") from error
        if len(content) > most:
            raise DeviceError(f"{self._name}: {path}: it has more than {most:,} bytes")
        return content

    def close(self) -> None:
        self._closing.close()
