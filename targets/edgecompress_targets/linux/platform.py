"""Linking for Linux and Android on 64-bit Arm and x86: a shared library, and a program that needs no other file."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress_targets.linux.linker import images
from edgecompress_targets.profile import Profile


@dataclass(frozen=True)
class Linux:
    """The platform (`platforms.Platform`) of a processor under Linux.

    compiler: GCC for the processor. packages: the Debian packages that contain it and its C library.
    """

    compiler: str
    packages: tuple[str, ...]

    def images(self, name: str, model: bytes, model_h: str, profile: Profile) -> dict[str, bytes]:
        """A shared library and a program. Raises ToolError when the compiler is not installed or fails."""
        return images(self.compiler, self.packages, name, model, model_h)

    def image(self, name: str) -> str:
        """The program's file name."""
        return f"{name}_run"


AARCH64 = Linux("aarch64-linux-gnu-gcc", ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"))
X86_64 = Linux("x86_64-linux-gnu-gcc", ("gcc", "libc6-dev"))  # on other processors gcc-x86-64-linux-gnu has it
