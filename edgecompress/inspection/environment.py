"""What is installed that this program can use, and what each missing part would enable."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata

from pydantic import BaseModel, Field
from rich.console import Group
from rich.text import Text

from edgecompress import __version__
from edgecompress.report.tables import Shown, table

SECONDS = 10.0  # that a program may take to say its version
PIP, APT = "pip install {}", "apt install {}"


class Part(BaseModel):
    """A program or package that something here needs, and whether it is installed."""

    kind: str
    name: str
    found: str | None = Field(description="its version or its path; null when it is missing")
    enables: str
    install: str = Field(description="the command that installs it: pip's, or else Debian's")


class Diagnosis(Shown, BaseModel):
    """Shows itself as a table in terminals and notebooks."""

    edgecompress: str
    python: str
    system: str
    parts: list[Part]

    def to_json(self) -> str:
        """JSON text, as `edgecompress doctor --json` prints it."""
        return self.model_dump_json(indent=2) + "\n"

    def __rich__(self) -> Group:
        head = Text.assemble((f"edgecompress {self.edgecompress}", "bold"), f", Python {self.python}, {self.system}")
        rows = [(p.name, p.found or "-", p.enables) for p in self.parts]
        missing = [p for p in self.parts if p.found is None]
        if not missing:
            return Group(head, table("", ("Part", "Found", "What for"), rows), Text("Nothing is missing."))
        lines = [(p.name, p.install) for p in missing]
        return Group(
            head,
            table("", ("Part", "Found", "What for"), rows),
            table("\nHow to install the missing parts (none is needed for everything)", ("Part", "Command"), lines),
        )


@dataclass(frozen=True)
class _Check:
    kind: str
    name: str
    find: Callable[[], str | None]
    enables: str
    install: str


def doctor() -> Diagnosis:
    """Look for every part. Nothing is changed."""
    parts = [Part(kind=c.kind, name=c.name, found=c.find(), enables=c.enables, install=c.install) for c in CHECKS]
    system = f"{platform.system()} {platform.machine()}"
    return Diagnosis(edgecompress=__version__, python=platform.python_version(), system=system, parts=parts)


def _package(name: str) -> str | None:
    """The version of a Python package; it is not imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _program(*names: str) -> str | None:
    """The version of the first of these programs that is installed."""
    for name in names:
        if (path := shutil.which(name)) is not None:
            return _version(path) or path
    return None


def _version(path: str) -> str | None:
    for argument in ("--version", "-V"):  # sshd knows the second alone
        try:
            done = subprocess.run([path, argument], capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return None
        words = (done.stdout + " " + done.stderr).replace(",", " ").split()
        numbers = [word.strip("()v") for word in words if "." in word and any(c.isdigit() for c in word)]
        if numbers:
            return next((n for n in numbers if n[0].isdigit()), numbers[0])
    return None


def _gpu() -> str | None:
    """The first CUDA device, by the driver's own program: asking PyTorch takes seconds."""
    path = shutil.which("nvidia-smi")
    if path is None or importlib.util.find_spec("torch") is None:
        return None
    try:
        done = subprocess.run([path, "-L"], capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].split(" (")[0] if done.returncode == 0 and done.stdout else None


def _python(kind: str, package: str, enables: str, install: str | None = None) -> _Check:
    return _Check(kind, package, partial(_package, package), enables, PIP.format(install or package))


def _tool(kind: str, names: str | tuple[str, ...], enables: str, install: str) -> _Check:
    names = (names,) if isinstance(names, str) else names
    return _Check(kind, names[0], partial(_program, *names), enables, install)


# One more part: one more line.
CHECKS: tuple[_Check, ...] = (
    _python("interpreter", "onnxruntime", "running .onnx files"),
    _python("interpreter", "ai-edge-litert", "running .tflite files"),
    _python("interpreter", "tflite-runtime", "the older runtime for .tflite files", "'edgecompress[tflite-runtime]'"),
    _python("interpreter", "tflite-micro", "running .tflite files as microcontrollers do", "'edgecompress[micro]'"),
    _python("interpreter", "numba", "compiling .pack files"),
    _python("training", "torch", "PyTorch models; pruning, distillation, training", "'edgecompress[torch]'"),
    _python("models", "tensorflow", "Keras files and SavedModels", "'edgecompress[tensorflow]'"),
    _Check("training", "GPU", _gpu, "faster training", "NVIDIA's driver, and PyTorch's CUDA build"),
    _python("training", "tensorboard", "[train] tensorboard", "'edgecompress[tensorboard]'"),
    _python("data", "pillow", "image folders as data", "'edgecompress[images]'"),
    _tool("linker", "arm-none-eabi-gcc", "firmware for Cortex-M", APT.format("gcc-arm-none-eabi")),
    _python("linker", "ziglang", "firmware for Cortex-M, without Debian", "'edgecompress[zig]'"),
    _tool("linker", "aarch64-linux-gnu-gcc", "programs for Android, Raspberry Pi",
          APT.format("gcc-aarch64-linux-gnu libc6-dev-arm64-cross")),
    _tool("linker", "x86_64-linux-gnu-gcc", "programs for x86 under Linux", APT.format("gcc libc6-dev")),
    _tool("linker", "riscv64-unknown-elf-gcc", "programs for RISC-V", APT.format("gcc-riscv64-unknown-elf")),
    _tool("emulator", "qemu-system-arm", "Cortex-M boards: qemu-m0 to qemu-m55", APT.format("qemu-system-arm")),
    _tool("emulator", "qemu-aarch64", "64-bit Arm: qemu-aarch64, qemu-aarch64-dot", APT.format("qemu-user")),
    _tool("emulator", "qemu-riscv32", "32-bit RISC-V: qemu-riscv32", APT.format("qemu-user")),
    _tool("emulator", "qemu-riscv64", "64-bit RISC-V: qemu-riscv64", APT.format("qemu-user")),
    _tool("device", "adb", "Android devices", APT.format("adb")),
    _python("device", "paramiko", "devices by ssh", "'edgecompress[devices]'"),
    _tool("probe", "pyocd", "flashing by CMSIS-DAP, ST-Link, J-Link", PIP.format("pyocd")),
    _tool("probe", "openocd", "flashing by OpenOCD", APT.format("openocd")),
    _tool("probe", "st-flash", "flashing by ST-Link", APT.format("stlink-tools")),
    _tool("probe", ("esptool", "esptool.py"), "flashing Espressif's chips", PIP.format("esptool")),
    _tool("probe", "dfu-util", "flashing by USB DFU", APT.format("dfu-util")),
)  # fmt: skip
