"""64-bit Arm under Linux or Android: a shared library, and a command-line program that needs no other file."""

from __future__ import annotations

from pathlib import Path

from edgecompress_targets.aarch64 import emulator
from edgecompress_targets.aarch64.linker import images
from edgecompress_targets.emulation import Run
from edgecompress_targets.profile import Profile
from edgecompress_targets.tools import require


class AArch64:
    """See platform.Platform."""

    def images(self, name: str, model: bytes, model_h: str, profile: Profile) -> dict[str, bytes]:
        return images(name, model, model_h)

    def image(self, name: str) -> str:
        return f"{name}_run"

    def emulator(self, profile: Profile) -> tuple[str, str]:
        require(emulator.QEMU, emulator.PACKAGE)
        return emulator.QEMU, f"one {emulator.CPU}"

    def run(self, image: Path, inputs: bytes, profile: Profile, *, timeout: float) -> Run:
        return emulator.run(image, inputs, timeout=timeout)
