"""Calls programs of others: linkers and emulators."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
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


def captured(words: Sequence[str], *, timeout: float, most: int, file: Path | None = None) -> tuple[int, bytes, bytes]:
    """(exit code, standard output, standard error) of a program that may repeat what a stranger says without end.

    Ends it, and raises ToolError, when it prints more than `most` bytes, or writes more to `file`; raises
    subprocess.TimeoutExpired after `timeout` seconds.
    """
    deadline, said = time.monotonic() + timeout, (bytearray(), bytearray())
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    started = subprocess.Popen(words, stdin=none, stdout=pipe, stderr=pipe, start_new_session=True)
    with started as process, selectors.DefaultSelector() as selector:
        for stream, into in zip((process.stdout, process.stderr), said, strict=True):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, into)
        try:
            while selector.get_map():
                for key, _ in selector.select(0.1):
                    if data := os.read(key.fd, 1 << 16):
                        key.data.extend(data)
                    else:
                        selector.unregister(key.fileobj)
                if max(map(len, said)) > most or (file is not None and file.exists() and file.stat().st_size > most):
                    raise ToolError(f"{words[0]}: more than {most:,} bytes came")
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(list(words), timeout)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # also what it started
            raise
    return code, bytes(said[0]), bytes(said[1])


def version(program: str) -> str:
    """The version that `program --version` prints first, such as "7.2.22"; empty when it prints none."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()
    return next((word for word in words if word[0].isdigit()), "")
