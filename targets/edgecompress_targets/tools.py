"""Programs that are not part of this one: linkers and emulators."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


class ToolError(RuntimeError):
    """A linker or an emulator is missing or failed."""


class MissingToolError(ToolError):
    """It is not installed; the message names the Debian package."""


def require(program: str, *packages: str) -> None:
    """Raises MissingToolError where `program` is not installed; packages: Debian's, that bring it."""
    if shutil.which(program) is None:
        raise MissingToolError(f"{program} is not installed; on Debian: apt install {' '.join(packages)}")


def call(*command: str | Path, packages: tuple[str, ...]) -> None:
    """Run a linker or the like. Raises ToolError."""
    require(str(command[0]), *packages)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ToolError(f"{command[0]} failed: {' '.join(done.stderr.split())}")


def version(program: str) -> str:
    """ "7.2.22", from what `program --version` says first ("" when it says none)."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()
    return next((word for word in words if word[0].isdigit()), "")
