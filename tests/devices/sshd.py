"""A real OpenSSH server on loopback for the tests, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Sshd:
    """folder: its keys (host, client, stranger) and known_hosts. process: of the listening server."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def table(self, **changes: object) -> dict[str, object]:
        """For devices.toml."""
        return {
            "driver": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "target": "raspberry-pi",
            "key": str(self.folder / "client"),
            "timeout": 60,
            "known_hosts": str(self.folder / "known_hosts"),
            "folder": str(self.folder / "device"),
            "prefix": ["qemu-aarch64", "-cpu", "cortex-a53"],
        } | changes

    def cut(self) -> None:
        """End every connection, as a cable does: the servers of single connections, and theirs."""
        for first in children(self.process.pid):
            for pid in (first, *children(first)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Of `sshd`; not what it started for the user."""
    listed = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if line.split()[1].startswith("sshd")]


@contextmanager
def running(folder: Path) -> Iterator[Sshd]:
    for name in ("host", "client", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kind, key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
        f"SetEnv HOME={folder}\n"  # what a user has in .bashrc would run before every command
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    command = [str(sshd), "-D", "-e", "-f", str(folder / "config")]
    process = subprocess.Popen(command, stderr=(folder / "log").open("wb"))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield Sshd(folder, port, process)
    finally:
        process.kill()
        process.wait()
