"""Drives a Linux board on the network over SSH, by paramiko: host keys are verified, login is by key or agent."""

from __future__ import annotations

import logging
import shlex
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgecompress_targets.connection.driver import DeviceError, LostError
from edgecompress_targets.drivers.linux import MOST_SAID, LinuxDevice, Timeouts, tied_to_input
from edgecompress_targets.drivers.settings import Settings

BLOCK, KEEP_ALIVE = 1 << 16, 5  # bytes; seconds
MODEL = "cat /proc/device-tree/model"
CPU = "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2"


class SshSettings(Settings):
    """A Linux board on the network: a table of devices.toml with driver = "ssh"."""

    driver: Literal["ssh"] = "ssh"
    host: str = Field(min_length=1, description="name or address")
    port: int = Field(22, gt=0, le=65_535)
    user: str | None = Field(None, description="unset: this machine's user")
    key: str | None = Field(None, description="private key file; unset: the agent's keys and the usual files")
    known_hosts: str = Field(
        "~/.ssh/known_hosts", description="file that holds the device's host key: log in once with ssh"
    )
    folder: str = Field(".cache/edgecompress", pattern=r"^[\w./-]+$", description="our folder, below the home folder")
    python: str | None = Field(
        None,
        description="a Python on the board that has edgecompress-runtime, LiteRT or ONNX Runtime; unset: it gets "
        "a compiled program, for .pack files",
    )
    prefix: tuple[str, ...] = Field((), description="words in front of a program, such as an emulator of the target")

    @property
    def formats(self) -> tuple[str, ...]:
        return ("pack", "tflite", "onnx") if self.python else ("pack",)

    @property
    def emulated(self) -> bool:
        return bool(self.prefix)

    @property
    def resource(self) -> str:
        return f"{self.host}:{self.port}"

    def open(self, name: str) -> LinuxDevice:
        return LinuxDevice(
            name,
            SshShell(name, self),
            self.folder,
            prefix=self.prefix,
            timeouts=Timeouts(self.timeout, self.inference_timeout),
            facts=[("model", MODEL), ("cpu", CPU)],
        )


class SshShell:
    """A shell (`linux.Shell`) over SSH. It connects when it is first used, and again after `close`."""

    def __init__(self, name: str, settings: SshSettings) -> None:
        self._name, self._settings = name, settings
        self._client: Any = None

    def execute(self, command: str, timeout: float) -> tuple[int, bytes, bytes]:
        return self._communicate(tied_to_input(command), None, timeout, MOST_SAID)

    def push(self, content: bytes, path: str) -> None:
        code, _, error = self._communicate(
            f"cat > {path}", content, self._settings.timeout + len(content) / 1e4, MOST_SAID
        )
        if code:
            said = error.decode(errors="replace").strip().splitlines() or [f"{path}: can't be written"]
            raise DeviceError(f"{self._name}: {said[-1]}")

    def pull(self, path: str, most: int) -> bytes:
        code, out, error = self._communicate(f"cat {path}", b"", 600, most)
        if code:
            raise DeviceError(f"{self._name}: {error.decode(errors='replace').strip()}")
        return out

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _communicate(self, command: str, stdin: bytes | None, timeout: float, most: int) -> tuple[int, bytes, bytes]:
        """Runs the command in the board's `sh`, whatever the user's shell is; it may print `most` bytes. stdin: None
        for one that stays open as long as the connection."""
        import paramiko

        deadline, out, error, sent = time.monotonic() + timeout, bytearray(), bytearray(), 0
        try:
            channel = self._connected().get_transport().open_session(timeout=self._settings.timeout)
            with channel:
                channel.settimeout(self._settings.timeout)
                channel.exec_command(f"exec sh -c {shlex.quote(command)}")
                while True:
                    progressed = False
                    if stdin is not None and sent < len(stdin) and channel.send_ready() and not channel.closed:
                        sent += channel.send(stdin[sent : sent + BLOCK])
                        progressed = True
                    if stdin is not None and sent == len(stdin) and not channel.eof_sent:
                        channel.shutdown_write()
                    if channel.recv_ready():
                        out += channel.recv(BLOCK)
                        progressed = True
                    if channel.recv_stderr_ready():
                        error += channel.recv_stderr(BLOCK)
                        progressed = True
                    if len(out) > most or len(error) > MOST_SAID:
                        raise DeviceError(f"{self._name}: more than {most:,} bytes came")
                    if channel.exit_status_ready() and channel.eof_received and not progressed:
                        break
                    if not self._client.get_transport().is_active():
                        raise EOFError("the connection ended")
                    if time.monotonic() > deadline:
                        raise DeviceError(f"{self._name}: did not end within {timeout:.0f} s")
                    if not progressed:
                        time.sleep(0.005)
                code = channel.recv_exit_status()
                if code < 0:  # ended without a status: by a signal, or the server went away
                    raise EOFError("the command was cut off")
        except (paramiko.SSHException, OSError, EOFError) as failure:
            self.close()
            reason = str(failure) or type(failure).__name__
            raise LostError(f"{self._name}: the connection was lost: {reason}") from failure
        return code, bytes(out), bytes(error)

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> Any:
        try:
            import paramiko
        except ImportError as error:
            raise DeviceError(f'{self._name}: needs paramiko: pip install "edgecompress[devices]"') from error
        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints tracebacks of its own
        s, client = self._settings, paramiko.SSHClient()
        known, where = Path(s.known_hosts).expanduser(), f"{self._name} ({s.host}:{s.port})"
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            if known.exists():
                client.load_host_keys(str(known))
            client.connect(
                s.host,
                s.port,
                s.user,
                key_filename=str(Path(s.key).expanduser()) if s.key else None,
                look_for_keys=s.key is None,
                timeout=s.timeout,
                banner_timeout=s.timeout,
                auth_timeout=s.timeout,
            )
        except paramiko.BadHostKeyException as error:
            raise DeviceError(
                f"{where}: its host key differs from the one in {known}: if the change is expected, remove the old "
                "key with ssh-keygen -R"
            ) from error
        except paramiko.AuthenticationException as error:
            raise DeviceError(
                f"{where}: the device refused the key of user {s.user or 'of this machine'}: {error}"
            ) from error
        except (paramiko.SSHException, OSError) as error:
            client.close()
            if "not found in known_hosts" in str(error):
                raise DeviceError(
                    f"{where}: its host key is not in {known}: log in once with ssh to accept it"
                ) from error
            kind = DeviceError if isinstance(error, TimeoutError) else LostError  # who waits once more, waits long
            raise kind(f"{where}: can't be reached: {_reason(error)}") from error
        transport = client.get_transport()
        assert transport is not None
        transport.set_keepalive(KEEP_ALIVE)
        return client


def _reason(error: Exception) -> str:
    """The reason of a failed connection in words; paramiko hides it behind others, with an error for each address."""
    first = next(iter(getattr(error, "errors", {}).values()), error)
    return getattr(first, "strerror", None) or str(first) or type(first).__name__
