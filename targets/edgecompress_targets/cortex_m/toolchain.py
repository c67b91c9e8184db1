"""Compilers that link firmware: arm-none-eabi-gcc, or Zig's from the Python package `ziglang`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgecompress_targets.tools import MissingToolError, call

GCC, ZIG_PACKAGE = "arm-none-eabi-gcc", "ziglang"
PACKAGES = ("gcc-arm-none-eabi",)
FREESTANDING = ("-O2", "-ffreestanding", "-nostdlib", "-Wl,-z,noexecstack")


@dataclass(frozen=True)
class Toolchain:
    """A compiler that links firmware.

    compiler, objcopy: commands. machine(cpu, hard_float): the arguments for a processor. libraries: those of 64-bit and
    floating-point arithmetic. forms: objcopy's formats by file name suffix.
    """

    compiler: tuple[str, ...]
    objcopy: tuple[str, ...]
    machine: Callable[[str, bool], tuple[str, ...]]
    libraries: tuple[str, ...]
    forms: dict[str, str]

    def link(self, *arguments: str | Path, cpu: str, hard_float: bool, entry: str) -> None:
        """Links the sources and objects to an ELF file. Raises ToolError."""
        machine = self.machine(cpu, hard_float)
        call(*self.compiler, *machine, *FREESTANDING, f"-Wl,-e,{entry}", *arguments, *self.libraries, packages=PACKAGES)

    def copy(self, elf: Path, suffix: str) -> None:
        """Writes `elf` in another format beside it. Raises ToolError."""
        call(*self.objcopy, "-O", self.forms[suffix], elf, elf.with_suffix(f".{suffix}"), packages=PACKAGES)


def _gnu(cpu: str, hard_float: bool) -> tuple[str, ...]:
    # or loops of ours become calls of memset, which no library here has
    loops = "-fno-tree-loop-distribute-patterns"
    return f"-mcpu={cpu}", "-mthumb", f"-mfloat-abi={'hard' if hard_float else 'soft'}", loops


def _zig(cpu: str, hard_float: bool) -> tuple[str, ...]:
    abi = "eabihf" if hard_float else "eabi"
    return "-target", f"thumb-freestanding-{abi}", f"-mcpu={cpu.replace('-', '_')}", "-g0", "-fno-sanitize=all"


GNU = Toolchain((GCC,), ("arm-none-eabi-objcopy",), _gnu, ("-lgcc",), {"hex": "ihex", "bin": "binary"})
_PYTHON = sys.executable, "-m", ZIG_PACKAGE
ZIG = Toolchain((*_PYTHON, "cc"), (*_PYTHON, "objcopy"), _zig, ("-lcompiler_rt",), {"hex": "hex", "bin": "binary"})


def installed() -> Toolchain:
    """The first toolchain that is installed. Raises MissingToolError."""
    if shutil.which(GCC):
        return GNU
    if find_spec(ZIG_PACKAGE):
        return ZIG
    raise MissingToolError(
        f"{GCC} is not installed; on Debian: apt install {' '.join(PACKAGES)}; anywhere: pip install {ZIG_PACKAGE}"
    )
