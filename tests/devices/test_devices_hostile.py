"""Devices that lie: what a peer announces is bounded below and above, and every violation is one line."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import pytest
import sshd

from edgecompress.devices.configuration import load_devices
from edgecompress.errors import InputError
from edgecompress_targets.connection.driver import LONGEST_MESSAGE, DeviceError, Program
from edgecompress_targets.connection.flash_image import parts
from edgecompress_targets.connection.frames import ANSWER, Frame, Kind, Receiver
from edgecompress_targets.connection.session import Session
from edgecompress_targets.connection.times import from_file
from edgecompress_targets.drivers import benchmarks
from edgecompress_targets.drivers.adb import AdbSettings, AdbShell
from edgecompress_targets.drivers.linux import LONGEST_FACT, LinuxDevice
from edgecompress_targets.drivers.local import LocalShell
from edgecompress_targets.drivers.ssh import SshSettings, SshShell
from edgecompress_targets.tools import ToolError, captured
from emulators import SSH

HELLO = {"version": 1, "counter": 1, "payload": 256, "input": 4, "output": 4, "arena": 1, "steps": 0}
FLOOD = "yes 0123456789012345678901234567890123456789 | head -c 20000000"  # no test may fill a disk
ENDLESS = f"{FLOOD}; sleep 600"  # who waits for its end is told that time is up


class Board:
    """Answers every request as PROTOCOL.md says, but for what `hello` and `answers` (by kind) say instead."""

    timeout: float | None = None

    def __init__(self, hello: dict[str, int] = HELLO, answers: dict[Kind, bytes] | None = None) -> None:
        self._hello, self._answers, self._receiver, self._line = hello, answers or {}, Receiver(), bytearray()

    def write(self, data: bytes) -> int:
        for request in self._receiver(data):
            assert request is not None
            kind = Kind(request.kind)
            usual = {
                Kind.HELLO: struct.pack("<BBHIIII32s", *self._hello.values(), bytes(32)),
                Kind.INVOKE: struct.pack("<II", 5, zlib.crc32(bytes(min(self._hello["output"], 5000)))),
                Kind.STATISTICS: struct.pack("<I", 100),
            }
            if kind == Kind.READ:
                usual[kind] = bytes(struct.unpack("<IH", request.payload)[1])
            payload = self._answers.get(kind, usual.get(kind, b""))
            self._line += Frame(request.session, request.sequence, kind | ANSWER, 0, payload).encoded()
        return len(data)

    def read(self, size: int = 1) -> bytes:
        result = bytes(self._line[:size])
        del self._line[:size]
        return result

    @property
    def in_waiting(self) -> int:
        return len(self._line)


def session(board: Board) -> Session:
    return Session(board, "board", patience=1, inference_patience=1)


def test_an_honest_board_is_measured() -> None:
    found = session(Board())
    assert found.infer(bytes(4)) == (bytes(4), 5) and found.stack() == 100 and found.steps() == ()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        *(("payload", n) for n in (0, 1, 4, 15, 4001, 65_535)),
        *((what, n) for what in ("input", "output") for n in (0, 2**28 + 1, 2**31, 2**32 - 1)),
        *(("arena", n) for n in (0, 2**30 + 1, 2**32 - 1)),
        *(("steps", n) for n in (2**16 + 1, 2**32 - 1)),
        ("version", 0), ("version", 255),
    ],
)  # fmt: skip
def test_what_a_hello_announces_is_bounded(what: str, value: int) -> None:
    with pytest.raises(DeviceError, match="flash it again"):
        session(Board(HELLO | {what: value}))


@pytest.mark.parametrize("payload", [16, 17, 64, 4000])
def test_any_payload_within_bounds_carries_a_record(payload: int) -> None:
    size = 5000
    assert session(Board(HELLO | {"payload": payload, "input": size, "output": size})).infer(bytes(size))[0] == bytes(
        size
    )


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.WRITE, Kind.INVOKE, Kind.READ, Kind.STATISTICS])
@pytest.mark.parametrize("length", [0, 1, 7, 47, 49, 1000])
def test_an_answer_has_the_length_that_was_asked_for(kind: Kind, length: int) -> None:
    if (kind, length) == (Kind.WRITE, 0):
        return
    with pytest.raises(DeviceError):
        asked = session(Board(answers={kind: bytes(length)}))
        asked.infer(bytes(4))
        asked.stack()


@pytest.mark.parametrize("used", [2**30 + 1, 2**31, 2**32 - 1])
def test_a_stack_that_can_not_be(used: int) -> None:
    with pytest.raises(DeviceError, match="can't be"):
        session(Board(answers={Kind.STATISTICS: struct.pack("<I", used)})).stack()


@pytest.mark.parametrize("times", [(-1,), (0, -(2**63)), (2**63 - 1,), (1, 2, 10**16 + 1)])
def test_times_that_can_not_be(times: tuple[int, ...]) -> None:
    with pytest.raises(DeviceError, match="can't have taken"):
        from_file(struct.pack(f"<{len(times)}q", *times), len(times), "board")


@pytest.mark.parametrize(
    ("format", "text"),
    [
        *(("onnx", f"model,{x},0") for x in ("nan", "inf", "-inf", "1e999", "-1", "1e300", "x", "", "9" * 5000)),
        *(("tflite", f"count=3 min={x} max=1 avg=1 std=0") for x in ("1e999", "-1", "e", "-", "1e300")),
        ("tflite", "count=" + "9" * 5000 + " min=1 max=1 avg=1 std=0"),
        ("tflite", ""), ("onnx", ""), ("onnx", "\n\n"), ("onnx", "model"), ("tflite", "\ufffd" * 100),
    ],
)  # fmt: skip
def test_benchmarks_that_say_what_can_not_be(format: str, text: str) -> None:
    with pytest.raises(DeviceError):
        benchmarks.benchmark(format, "/data/benchmark", 1).parse(text)


@pytest.mark.parametrize("said", ["one\ntwo\nthree", "x" * 10_000, "\n" * 3000, "\x1b[2J\r\n\x85\u2028"])
def test_a_failure_is_one_line_of_bounded_length(said: str) -> None:
    message = str(DeviceError(f"board: {said}"))
    assert len(message.splitlines()) == 1 and len(message) <= LONGEST_MESSAGE


class Says:
    """A shell whose every command prints the same, and whose files hold zeros."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def execute(self, command: str, timeout: float) -> tuple[int, bytes, bytes]:
        return 0, self._said, b""

    def push(self, content: bytes, path: str) -> None: ...

    def pull(self, path: str, most: int) -> bytes:
        return bytes(most)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "said",
    [
        b"", b"\n", b"1", b"9" * 5000, b"\n".join([b"9" * 5000] * 3), b"x" * 100_000, b"\xff\xfe",
        "\u0661\n\u0662\n\u0663\n".encode(),
        b"interpreter: x\n" * 1000, b"0\n0\n0\n", b"1 2 3 4 5 6", b"\x1b[2J", "²\n²\n²".encode(),
    ],
)  # fmt: skip
def test_whatever_a_linux_device_says(said: bytes) -> None:
    program = Program("name", "0" * 64, 4, 2, {"program": b""}, ("./program", "{inputs}", "{outputs}", "{times}"))
    device = LinuxDevice("board", Says(said), "folder", facts=[("cpu", "cpu")])
    found = device.probe()
    assert all(len(fact) <= LONGEST_FACT for fact in found.facts.values())
    assert len(found.description) <= 2 * LONGEST_FACT + 2
    measured = device.run(program, bytes(12))
    assert len(measured.notes) <= 3 and all(len(note) < 200 for note in measured.notes)


@pytest.mark.parametrize("stream", [1, 2])
def test_a_program_that_prints_without_end_is_ended(stream: int) -> None:
    with pytest.raises(ToolError, match="more than"):
        captured(["sh", "-c", f"({ENDLESS}) >&{stream}"], timeout=60, most=1 << 20)


def test_a_program_that_fills_a_file_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="more than"):
        captured(["sh", "-c", f"({ENDLESS}) > {tmp_path}/f"], timeout=60, most=1 << 20, file=tmp_path / "f")


def test_what_a_program_prints_and_its_code_come_back() -> None:
    code, out, error = captured([sys.executable, "-c", "import sys; print('o'); sys.exit('e')"], timeout=60, most=100)
    assert (code, out, error) == (1, b"o\n", b"e\n")
    with pytest.raises(subprocess.TimeoutExpired):
        captured(["sleep", "20"], timeout=0.2, most=100)


def flooded(shell: SshShell | LocalShell, folder: Path) -> None:
    """A command that prints without end, and a file that is longer than it should be."""
    (folder / "long").write_bytes(bytes(3 << 20))
    if not isinstance(shell, LocalShell):
        with pytest.raises(DeviceError, match="more than"):
            shell.execute(ENDLESS, 60)
    with pytest.raises(DeviceError, match="more than"):
        shell.pull(str(folder / "long"), 1000)
    (folder / "right").write_bytes(bytes(1000))
    assert shell.pull(str(folder / "right"), 1000) == bytes(1000)


def test_this_machine(tmp_path: Path) -> None:
    flooded(LocalShell("here"), tmp_path)


@SSH
def test_ssh(tmp_path: Path) -> None:
    pytest.importorskip("paramiko", reason='needs paramiko: pip install "edgecompress[devices]"')
    with sshd.running(tmp_path) as server:
        flooded(SshShell("pi", SshSettings.model_validate(server.table())), tmp_path)


def test_adb(tmp_path: Path) -> None:
    """In place of `adb` a program that floods: what it prints for `shell`, and the file for `pull`."""
    program = tmp_path / "adb"
    program.write_text(f'#!/bin/sh\ncase "$3" in pull) ({ENDLESS}) > "$5";; *) {ENDLESS};; esac\n')
    program.chmod(0o755)
    shell = AdbShell("phone", AdbSettings(serial="ABC", adb=str(program), timeout=60))
    for flood in (partial(shell.execute, "true", 60), partial(shell.pull, "file", 1000)):
        with pytest.raises(DeviceError, match="more than"):
            flood()


def test_an_image_whose_parts_are_the_same_bytes_again_and_again() -> None:
    header = struct.pack("<5I", 1, 0, 0, 0, 10_000) + bytes(12)
    content = bytearray(b"\x7fELF\x01\x01" + bytes(46) + header * 300).ljust(10_000, b"\0")
    struct.pack_into("<I", content, 28, 52)
    struct.pack_into("<2H", content, 42, 32, 300)
    with pytest.raises(ValueError, match="overlap"):
        parts("a.elf", bytes(content))


@pytest.mark.parametrize("driver", ["[]", '["ssh"]', "{a = 1}", "1", "1.5", "true", '""', "1979-05-27"])
def test_a_driver_that_is_no_word(driver: str, tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(f"[devices.x]\ndriver = {driver}\n")
    found = load_devices(tmp_path / "d.toml")["x"]
    assert isinstance(found, InputError) and "expected one of" in str(found)
