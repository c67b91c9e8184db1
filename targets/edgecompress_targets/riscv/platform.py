"""Linking for RISC-V: a program for Linux, which QEMU's user-mode emulators run.

On a microcontroller it is the object file that counts; the program only tries it out.
"""

from __future__ import annotations

from edgecompress_targets.profile import Profile
from edgecompress_targets.riscv.linker import program


class RiscV:
    """The platform (`platforms.Platform`) of RISC-V."""

    def images(self, name: str, model: bytes, model_h: str, profile: Profile) -> dict[str, bytes]:
        """One program for Linux. Raises ToolError when the compiler is not installed or fails."""
        return {self.image(name): program(model, model_h, profile)}

    def image(self, name: str) -> str:
        """The program's file name."""
        return f"{name}_run"
