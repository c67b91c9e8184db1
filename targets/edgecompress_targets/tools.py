"""Calls programs of others: linkers and emulators."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


class ToolError(RuntimeError):
    """A linker or an emulator is missing or failed."""


class MissingToolError(ToolError):
    """The program is not installed; the message names the Debian package."""


def require(program: str, *packages: str) -> None:
    """Raises MissingToolError when `program` is not installed. packages: the Debian packages that contain it."""
    if shutil.which(program) is None:
        raise MissingToolError(f"{program} is not installed; on Debian: apt install {' '.join(packages)}")


def call(*command: str | Path, packages: tuple[str, ...]) -> None:
    """Runs a linker or a similar program. Raises ToolError."""
    require(str(command[0]), *packages)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ToolError(f"{command[0]} failed: {' '.join(done.stderr.split())}")


def version(program: str) -> str:
    """The version that `program --version` prints first, such as "7.2.22"; empty when it prints none."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()
    return next((word for word in words if word[0].isdigit()), "")
