"""Skips tests where an emulator, a cross linker or another program is not installed; .ci/run installs them all."""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {
    "adb": "adb",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "qemu-aarch64": "qemu-user",
    "qemu-riscv32": "qemu-user",
    "qemu-riscv64": "qemu-user",
    "qemu-system-arm": "qemu-system-arm",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "ssh-keygen": "openssh-client",
    "x86_64-linux-gnu-gcc": "gcc libc6-dev",
    "sshd": "openssh-server",
}


PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    packages = " ".join(PACKAGES[program] for program in missing)
    return pytest.mark.skipif(
        bool(missing), reason=f"not installed: {', '.join(missing)} (Debian: apt install {packages})"
    )


CORTEX_M = needs("qemu-system-arm", "arm-none-eabi-gcc")
AARCH64 = needs("qemu-aarch64", "aarch64-linux-gnu-gcc")
RISCV = needs("qemu-riscv32", "qemu-riscv64", "riscv64-unknown-elf-gcc")
SSH = needs("sshd", "ssh-keygen", "qemu-aarch64", "aarch64-linux-gnu-gcc")
ADB = needs("adb", "qemu-aarch64", "aarch64-linux-gnu-gcc")
