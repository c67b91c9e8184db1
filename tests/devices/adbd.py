"""A stand-in for Android's adbd, for the tests: speaks the ADB wire protocol on loopback to the real `adb` client.

Written after the protocol's description in AOSP (packages/modules/adb: protocol.txt, SYNC.TXT, shell_protocol.h):
connect without authentication, shell protocol v2, sync's STAT, SEND, RECV and QUIT. Commands are run by this
machine's sh. It is no Android: what only a phone can show is not tested with it.
"""

from __future__ import annotations

import os
import queue
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

HEADER = struct.Struct("<6I")
VERSION, LARGEST = 0x01000001, 256 * 1024
BANNER = b"device::ro.product.name=stand_in;ro.product.model=Stand-in;ro.product.device=stand_in;features=shell_v2,cmd"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
GETPROP = '#!/bin/sh\ncase "$1" in ro.product.model) echo "Stand-in";; ro.build.version.release) echo 14;; esac\n'


def command(name: str) -> int:
    return int.from_bytes(name.encode(), "little")


class Adbd:
    """port: it listens there. connections: open ones; `cut` ends them. full: then writing files fails as on a full
    disk. flip: then the first byte of each file that arrives is another. cut_pushes: so many files do not arrive, as
    the connection ends on their way."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.full = self.flip = False
        self.cut_pushes = 0
        self.programs = tempfile.TemporaryDirectory()
        getprop = Path(self.programs.name, "getprop")
        getprop.write_text(GETPROP)
        getprop.chmod(0o755)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        while self.connections:
            connection = self.connections.pop()
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()
        self.programs.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=_Connection(self, connection).serve, daemon=True).start()


class _Connection:
    def __init__(self, adbd: Adbd, connection: socket.socket) -> None:
        self.adbd, self.connection = adbd, connection
        self.streams: dict[int, _Stream] = {}
        self.lock = threading.Lock()

    def send(self, name: str, first: int, second: int, data: bytes = b"") -> None:
        kind = command(name)
        with self.lock:
            self.connection.sendall(
                HEADER.pack(kind, first, second, len(data), sum(data) & 0xFFFFFFFF, kind ^ 0xFFFFFFFF) + data
            )

    def serve(self) -> None:
        try:
            while True:
                kind, first, second, length, _, magic = HEADER.unpack(self._exactly(HEADER.size))
                assert magic == kind ^ 0xFFFFFFFF
                self._handle(kind, first, second, self._exactly(length))
        except (OSError, EOFError):
            pass
        finally:
            for stream in self.streams.values():
                stream.end()
            self.connection.close()

    def _handle(self, kind: int, theirs: int, ours: int, data: bytes) -> None:
        if kind == command("CNXN"):
            self.send("CNXN", VERSION, LARGEST, BANNER)
        elif kind == command("OPEN"):
            stream = self.streams[len(self.streams) + 1] = _Stream(self, len(self.streams) + 1, theirs)
            stream.start(data.rstrip(b"\0").decode())
        elif kind == command("WRTE") and ours in self.streams:
            self.send("OKAY", ours, theirs)
            self.streams[ours].received.put(data)
        elif kind == command("OKAY") and ours in self.streams:
            self.streams[ours].ready.release()
        elif kind == command("CLSE") and ours in self.streams:
            self.streams[ours].end()

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.connection.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data


class _Stream:
    """One service that the client opened. Every block that is written waits for the client's OKAY."""

    def __init__(self, connection: _Connection, ours: int, theirs: int) -> None:
        self.connection, self.ours, self.theirs = connection, ours, theirs
        self.received: queue.Queue[bytes | None] = queue.Queue()
        self.ready, self.rest = threading.Semaphore(1), b""

    def start(self, service: str) -> None:
        name, _, argument = service.partition(":")
        handler = {"shell": self._shell, "sync": self._sync}.get(name.split(",")[0])
        if handler is None:
            self.connection.send("CLSE", 0, self.theirs)
            return
        self.connection.send("OKAY", self.ours, self.theirs)
        threading.Thread(target=self._run, args=(handler, argument), daemon=True).start()

    def end(self) -> None:
        self.received.put(None)
        self.ready.release()

    def _run(self, handler, argument: str) -> None:
        try:
            handler(argument)
            self.connection.send("CLSE", self.ours, self.theirs)
        except (OSError, EOFError):
            pass

    def _write(self, data: bytes) -> None:
        for at in range(0, len(data), LARGEST // 4):
            self.ready.acquire()
            self.connection.send("WRTE", self.ours, self.theirs, data[at : at + LARGEST // 4])

    def _read(self, length: int) -> bytes:
        while len(self.rest) < length:
            part = self.received.get()
            if part is None:
                raise EOFError
            self.rest += part
        data, self.rest = self.rest[:length], self.rest[length:]
        return data

    def _shell(self, text: str) -> None:
        path = f"{self.connection.adbd.programs.name}:{os.environ['PATH']}"
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                ["/bin/sh", "-c", text],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"PATH": path},
                start_new_session=True,
            )
            assert process.stdin is not None and process.stdout is not None
            threading.Thread(target=self._feed, args=(process.stdin,), daemon=True).start()
            out, code = process.stdout.read(), process.wait()
            errors.seek(0)
            said = ((STDOUT, out), (STDERR, errors.read()), (EXIT, bytes([code & 0xFF])))
        for kind, data in said:
            if data:
                self._write(struct.pack("<BI", kind, len(data)) + data)

    def _feed(self, stdin: IO[bytes]) -> None:
        """The program's input ends with the connection; that is all that adbd does to the program."""
        with suppress(OSError, EOFError), stdin:
            while True:
                kind, length = struct.unpack("<BI", self._read(5))
                data = self._read(length)
                if kind == CLOSE_STDIN:
                    return
                if kind == STDIN:
                    stdin.write(data)
                    stdin.flush()

    def _sync(self, _: str) -> None:
        while True:
            kind, length = struct.unpack("<4sI", self._read(8))
            argument = self._read(length).decode() if kind != b"QUIT" else ""
            if kind == b"STAT":
                self._stat(Path(argument))
            elif kind == b"SEND":
                self._receive_file(*argument.rsplit(",", 1))
            elif kind == b"RECV":
                self._send_file(Path(argument))
            else:
                return

    def _stat(self, path: Path) -> None:
        found = path.stat() if path.exists() else os.stat_result([0] * 10)
        self._write(struct.pack("<4sIII", b"STAT", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)))

    def _receive_file(self, name: str, mode: str) -> None:
        content = b""
        while True:
            kind, length = struct.unpack("<4sI", self._read(8))
            if kind == b"DONE":
                break
            content += self._read(length)
            if self.connection.adbd.cut_pushes:
                self.connection.adbd.cut_pushes -= 1
                self.connection.adbd.cut()
                raise EOFError
        try:
            if self.connection.adbd.full:
                raise OSError(28, "No space left on device")
            if self.connection.adbd.flip and content:
                content = bytes([content[0] ^ 1]) + content[1:]
            Path(name).write_bytes(content)
            os.chmod(name, int(mode) & 0o777 or 0o644)
        except OSError as error:
            said = f"couldn't write file: {error.strerror}".encode()
            self._write(struct.pack("<4sI", b"FAIL", len(said)) + said)
            return
        self._write(struct.pack("<4sI", b"OKAY", 0))

    def _send_file(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            said = str(error.strerror).encode()
            self._write(struct.pack("<4sI", b"FAIL", len(said)) + said)
            return
        for at in range(0, len(content), 60_000):
            part = content[at : at + 60_000]
            self._write(struct.pack("<4sI", b"DATA", len(part)) + part)
        self._write(struct.pack("<4sI", b"DONE", 0))


@contextmanager
def running() -> Iterator[Adbd]:
    """The stand-in, and a server of `adb` of its own: not that of whoever runs the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    before = os.environ.get("ANDROID_ADB_SERVER_PORT")
    os.environ["ANDROID_ADB_SERVER_PORT"] = port
    adbd = Adbd()
    try:
        yield adbd
    finally:
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=20)
        adbd.close()
        os.environ.pop("ANDROID_ADB_SERVER_PORT")
        if before is not None:
            os.environ["ANDROID_ADB_SERVER_PORT"] = before
