"""Drives an Android device with `adb`."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgecompress_targets.connection.driver import DeviceError, LostError
from edgecompress_targets.drivers.linux import MOST_SAID, LinuxDevice, Timeouts, tied_to_input
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.tools import ToolError, captured, require
from edgecompress_targets.work_folder import work_folder

FACTS = [("model", "getprop ro.product.model"), ("cpu", "getprop ro.soc.model"),
         ("android", "getprop ro.build.version.release")]  # fmt: skip

END = "edgecompress-end:"


class AdbSettings(Settings):
    """An Android device: a table of devices.toml with driver = "adb"."""

    driver: Literal["adb"] = "adb"
    target: str = Field("android", description="its profile")
    serial: str = Field(min_length=1, description="as `adb devices` shows it; HOST:PORT for one on the network")
    adb: str = Field("adb", description="the program")
    folder: str = Field("/data/local/tmp/edgecompress", pattern=r"^[\w./-]+$", description="our folder on the device")
    prefix: tuple[str, ...] = Field((), description="words in front of a program, such as an emulator of the target")

    benchmark: dict[Literal["tflite", "onnx"], str] = Field(
        {},
        description="by format, a benchmark program that is on the device: tflite: benchmark_model, onnx: "
        "onnxruntime_perf_test; unset: only .pack files run there",
    )

    @property
    def formats(self) -> tuple[str, ...]:
        return ("pack", *self.benchmark)

    @property
    def emulated(self) -> bool:
        return bool(self.prefix)

    @property
    def resource(self) -> str:
        return self.serial

    def open(self, name: str) -> LinuxDevice:
        return LinuxDevice(
            name,
            AdbShell(name, self),
            self.folder,
            prefix=self.prefix,
            timeouts=Timeouts(self.timeout, self.inference_timeout),
            facts=FACTS,
        )


class AdbShell:
    """A shell (`linux.Shell`) on an Android device."""

    def __init__(self, name: str, settings: AdbSettings) -> None:
        self._name, self._settings, self._connected = name, settings, False

    def execute(self, command: str, timeout: float) -> tuple[int, bytes, bytes]:
        """(exit code, standard output, standard error) of a command.

        Exit codes need shell protocol v2, which Android has since version 7. `adb shell` also returns 0 when the
        connection is cut, so that only a command whose end was printed counts as done.
        """
        words = f"sh -c {shlex.quote(tied_to_input(command))}; printf '{END}%d' $?"
        code, out, error = self._adb("shell", words, timeout=timeout)
        said, end, status = out.rpartition(END.encode())
        if not code and not (end and status.isdigit()):
            self._connected = False
            raise LostError(f"{self._name}: the connection was lost")
        return code or int(status[:6]), said, error

    def push(self, content: bytes, path: str) -> None:
        with work_folder() as work:
            file = Path(work) / "file"
            file.write_bytes(content)
            self._transfer("push", str(file), path, size=len(content))

    def pull(self, path: str, most: int) -> bytes:
        with work_folder() as work:
            file = Path(work) / "file"
            self._transfer("pull", path, str(file), size=0, most=most, file=file)
            if file.stat().st_size > most:
                raise DeviceError(f"{self._name}: {path}: more than {most:,} bytes came")
            return file.read_bytes()

    def close(self) -> None:
        """Does nothing: the server of `adb` keeps the connection."""

    def _transfer(self, *words: str, size: int, most: int = MOST_SAID, file: Path | None = None) -> None:
        timeout = self._settings.timeout + 600 + size / 1e5
        code, out, error = self._adb(*words, timeout=timeout, most=max(most, MOST_SAID), file=file)
        if code:
            said = (error + b"\n" + out).decode(errors="replace").splitlines()
            faults = [line.partition("error: ")[2] for line in said if "error: " in line] or said or ["it failed"]
            if "remote" not in faults[0]:  # which is what the device says itself
                self._connected = False
                raise LostError(f"{self._name}: adb {words[0]}: {faults[0]}")
            raise DeviceError(f"{self._name}: adb {words[0]}: {faults[0]}")

    def _adb(
        self, *words: str, timeout: float, most: int = MOST_SAID, file: Path | None = None
    ) -> tuple[int, bytes, bytes]:
        self._connect()
        code, out, error = self._call("-s", self._settings.serial, *words, timeout=timeout, most=most, file=file)
        said = error.decode(errors="replace").strip()
        if code and said.startswith(("error:", "adb: device", "adb: no devices", "adb: error: failed to get feature")):
            reason = said.splitlines()[0].removeprefix("error: ")
            where = f"{self._name} ({self._settings.serial})"
            if "unauthorized" in said:
                raise DeviceError(f"{where}: {reason}: allow this computer on its screen")
            self._connected = False
            raise LostError(f"{where}: {reason}")
        if code == 255 or (code and "closed" in said.lower()):
            self._connected = False
            raise LostError(f"{self._name}: the connection was lost")
        return code, out, error

    def _connect(self) -> None:
        """Connects to a device on the network again, since the server may have lost it."""
        if self._connected or ":" not in self._settings.serial:
            return
        timeout, serial = self._settings.timeout, self._settings.serial
        deadline = time.monotonic() + timeout
        while True:
            _, out, error = self._call("connect", serial, timeout=timeout)
            said = (out + error).decode(errors="replace").strip()
            if "connected to" not in said:
                raise LostError(f"{self._name}: {said.splitlines()[-1] if said else 'adb can not connect to it'}")
            state = b"".join(self._call("-s", serial, "get-state", timeout=timeout)[1:])
            gone = b"offline" in state or b"not found" in state
            if not gone or time.monotonic() > deadline:
                break
            self._call("disconnect", serial, timeout=timeout)  # "already connected", to what is gone
            time.sleep(0.1)
        self._connected = True

    def _call(
        self, *words: str, timeout: float, most: int = MOST_SAID, file: Path | None = None
    ) -> tuple[int, bytes, bytes]:
        try:
            require(self._settings.adb, "adb")
            code, out, error = captured([self._settings.adb, *words], timeout=timeout, most=most, file=file)
        except ToolError as failure:
            raise DeviceError(f"{self._name}: {failure}") from failure
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self._name}: adb {words[-1][:40]}: did not end within {timeout:.0f} s") from None
        return code, _without_news(out), _without_news(error)


def _without_news(said: bytes) -> bytes:
    """What `adb` printed without lines such as "* daemon not running; starting now at tcp:5037"."""
    return (
        said
        if not said.startswith(b"* daemon")
        else b"\n".join(line for line in said.split(b"\n") if not line.startswith(b"* daemon"))
    )
