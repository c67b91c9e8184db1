"""Calls programs of others: linkers and emulators."""

from __future__ import annotations

import ctypes
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

# Both call prctl(PR_SET_PDEATHSIG, SIGKILL): Linux sends the signal when the thread ends that started the process. Then
# they see whether that has ended already: its number is the first argument, and the program follows.
SETPRIV = "setpriv", "--pdeathsig", "KILL", "--", "/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"'
TIE = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])"""


class ToolError(RuntimeError):
    """A linker or an emulator is missing or failed."""


class MissingToolError(ToolError):
    """The program is not installed; the message names the Debian package."""


def require(program: str, *packages: str) -> None:
    """Raises MissingToolError when `program` is not installed. packages: the Debian packages that contain it."""
    if shutil.which(program) is None:
        raise MissingToolError(f"{program} is not installed; on Debian: apt install {' '.join(packages)}")


def tied(words: Sequence[str | Path]) -> list[str]:
    """The words of a program that is killed when the thread ends that starts it, also when that is killed.

    Under Linux alone; elsewhere a program outlives whoever is killed. A word in front of the program would hide that it
    is not installed, so call `require` first. Programs that it starts itself are not tied.
    """
    tie = _tie()
    return [*tie, str(os.getpid()), *map(str, words)] if tie else [str(word) for word in words]


@cache
def _tie() -> tuple[str, ...]:
    if not sys.platform.startswith("linux"):
        return ()
    words = (shutil.which(SETPRIV[0]) or "", *SETPRIV[1:])  # PATH may be another one at the next call
    works = words[0] and subprocess.run([*words, str(os.getpid()), "true"], capture_output=True).returncode == 0
    return words if works else (sys.executable, "-I", "-S", "-c", TIE)  # which takes some 30 ms


def end_with_starter() -> None:
    """Has this process killed when the one that started it ends; under Linux alone."""
    if sys.platform.startswith("linux"):
        starter = os.getppid()
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
        if os.getppid() != starter:  # it ended meanwhile
            os.kill(os.getpid(), signal.SIGKILL)


def call(*command: str | Path, packages: tuple[str, ...]) -> None:
    """Runs a linker or a similar program. Raises ToolError."""
    require(str(command[0]), *packages)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ToolError(f"{command[0]} failed: {' '.join(done.stderr.split())}")


def captured(words: Sequence[str], *, timeout: float, most: int, file: Path | None = None) -> tuple[int, bytes, bytes]:
    """(exit code, standard output, standard error) of a program that may repeat what a stranger says without end. Its
    standard input is empty, and open as long as this process waits for it.

    Ends it, and raises ToolError, when it prints more than `most` bytes, or writes more to `file`; raises
    subprocess.TimeoutExpired after `timeout` seconds.
    """
    deadline, said = time.monotonic() + timeout, (bytearray(), bytearray())
    pipe = subprocess.PIPE
    started = subprocess.Popen(tied(words), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
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
