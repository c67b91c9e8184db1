"""The host's side of the serial protocol (PROTOCOL.md): requests, answers, time-outs, and an inference made of them."""

from __future__ import annotations

import secrets
import struct
import time
import zlib
from dataclasses import dataclass
from typing import Protocol

from edgecompress_targets.connection.driver import DeviceError, LostError
from edgecompress_targets.connection.frames import ANSWER, Frame, Kind, Receiver, Status

VERSION = 1
SMALLEST = 16  # bytes of a chunk, however bad the line
FIRST_WAIT, LEAST_WAIT, LONGEST_WAIT = 0.5, 0.05, 4.0  # seconds until a request is sent again
OVERHEAD = 14  # bytes of a frame beside its payload
MOST_STACK = 1 << 30  # bytes
# What a HELLO may say, lowest and highest: a frame has to fit the receiver, and a run has to end.
BOUNDS = {
    "payload": (SMALLEST, 4000), "input_bytes": (1, 1 << 28), "output_bytes": (1, 1 << 28), "arena_bytes": (1, 1 << 30),
    "steps": (0, 1 << 16),
}  # fmt: skip
_HELLO = struct.Struct("<BBHIIII32s")


class Port(Protocol):
    """A byte stream, as pyserial's `serial_for_url` opens it. Raises OSError."""

    timeout: float | None

    def read(self, size: int = 1, /) -> bytes:
        """Up to `size` bytes; fewer when `timeout` seconds pass."""
        ...

    def write(self, data: bytes, /) -> int | None:
        """Sends the bytes; returns how many were taken."""
        ...

    @property
    def in_waiting(self) -> int:
        """How many bytes have come and were not read yet."""
        ...


@dataclass(frozen=True)
class Hello:
    """What the firmware says about itself. counter: the counter of an inference, "cycles" or "systick"."""

    counter: str
    payload: int
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    steps: int
    digest: str


@dataclass
class Traffic:
    """Frames sent since the firmware first answered, those sent again, and bytes in both directions."""

    frames: int = 0
    again: int = 0
    sent: int = 0
    received: int = 0


class Session:
    """One conversation with one firmware.

    name: the device's name in messages. baud: the speed of the line, or None for one without. patience,
    inference_patience: seconds until a request or an inference is given up.
    """

    def __init__(
        self, port: Port, name: str, *, baud: int | None = None, patience: float = 10, inference_patience: float = 120
    ) -> None:
        self._port, self._name, self._baud = port, name, baud
        self._patience = {Kind.INVOKE: inference_patience}
        self._usual_patience = patience
        self._number, self._sequence = secrets.randbelow(0xFFFF) + 1, 0
        self._receiver, self._smoothed = Receiver(), dict[Kind, float]()
        self._chunk = SMALLEST
        self.traffic = Traffic()
        self.hello = self._greet()

    def infer(self, record: bytes) -> tuple[bytes, int]:
        """The output and the count of one inference. A CRC-32 covers the whole record both ways."""
        self._write(record)
        checked = struct.pack("<I", zlib.crc32(record))
        taken, crc = struct.unpack("<II", self._ask(Kind.INVOKE, checked, answer=8))
        output = self._read(self.hello.output_bytes)
        if zlib.crc32(output) != crc:
            raise DeviceError(f"{self._name}: the output that arrived differs from the one that was computed")
        return output, taken

    def stack(self) -> int:
        """The most bytes of stack used since start-up."""
        used = int(struct.unpack("<I", self._ask(Kind.STATISTICS, b"", answer=4))[0])
        if used > MOST_STACK:
            raise DeviceError(f"{self._name}: it says that {used:,} bytes of stack were used, which can't be")
        return used

    def checksum(self, address: int, length: int) -> int:
        """The CRC-32 of the device's memory, which the device computes itself."""
        asked = struct.pack("<II", address, length)
        return int(struct.unpack("<I", self._ask(Kind.MEMORY, asked, answer=4))[0])

    def steps(self) -> tuple[int, ...]:
        """The counts of the last inference's steps; empty unless the program is profiled."""
        counts: list[int] = []
        while len(counts) < self.hello.steps:
            n = min(self.hello.steps - len(counts), self.hello.payload // 4)
            counts += struct.unpack(f"<{n}I", self._ask(Kind.STEPS, struct.pack("<IH", len(counts), n), answer=4 * n))
        return tuple(counts)

    def _greet(self) -> Hello:
        fields = _HELLO.unpack(self._ask(Kind.HELLO, b"", answer=_HELLO.size))
        version, counter, digest, sizes = *fields[:2], fields[-1], fields[2:-1]
        if version != VERSION:
            raise DeviceError(
                f"{self._name}: its firmware speaks version {version} of the protocol, but this "
                f"program speaks version {VERSION}: flash it again"
            )
        for (what, (lowest, highest)), found in zip(BOUNDS.items(), sizes, strict=True):
            if not lowest <= found <= highest:
                raise DeviceError(
                    f"{self._name}: its firmware says {what} = {found:,}, expected {lowest:,} to {highest:,}: "
                    "flash it again"
                )
        self._chunk = sizes[0]
        self.traffic = Traffic()  # a board that starts is deaf for a while: nothing was lost on the line
        payload, inputs, outputs, arena, steps = sizes
        return Hello("cycles" if counter else "systick", payload, inputs, outputs, arena, steps, digest.hex())

    def _write(self, record: bytes) -> None:
        at = 0
        while at < len(record):
            part = record[at : at + self._chunk - 4]
            self._ask(Kind.WRITE, struct.pack("<I", at) + part, answer=0)
            at += len(part)

    def _read(self, length: int) -> bytes:
        result = b""
        while len(result) < length:
            n = min(length - len(result), self._chunk)
            result += self._ask(Kind.READ, struct.pack("<IH", len(result), n), answer=n)
        return result

    def _ask(self, kind: Kind, payload: bytes, *, answer: int) -> bytes:
        """The payload of the answer, of `answer` bytes. A request is sent again when its answer is late or damaged."""
        self._sequence = self._sequence % 0xFFFF + 1
        line = Frame(self._number, self._sequence, kind, payload=payload).encoded()
        begun = time.monotonic()
        deadline = begun + self._patience.get(kind, self._usual_patience)
        wait, tries = self._first_wait(kind, len(line) + answer), 0
        while (sent := time.monotonic()) < deadline:
            self._send(line)
            tries += 1
            found = self._answer(min(sent + wait, deadline))
            if isinstance(found, Frame):
                self._learn(kind, time.monotonic() - sent if tries == 1 else None)
                return self._checked(found, kind, answer)
            if found == "late":
                wait = min(2 * wait, max(LONGEST_WAIT, wait))
        raise DeviceError(
            f"{self._name}: no answer to {kind.name} within {time.monotonic() - begun:.0f} s ({tries} tries)"
        )

    def _first_wait(self, kind: Kind, length: int) -> float:
        on_the_line = 10 * (length + OVERHEAD) / self._baud if self._baud else 0.0
        return on_the_line + max(LEAST_WAIT, 4 * self._smoothed.get(kind, FIRST_WAIT / 4))

    def _learn(self, kind: Kind, took: float | None) -> None:
        """Learns the time of an answer from requests that were sent once (Karn's rule: otherwise it is open which one
        was answered).
        """
        if took is None:
            self._chunk = max(SMALLEST, self._chunk // 2)
            return
        self._chunk = min(self.hello.payload, self._chunk + 8) if kind is not Kind.HELLO else self._chunk
        before = self._smoothed.get(kind, took)
        self._smoothed[kind] = before + (took - before) / 8

    def _send(self, line: bytes) -> None:
        try:
            self._port.write(line)
        except OSError as error:
            raise self._lost(error) from error
        self.traffic.frames += 1
        self.traffic.sent += len(line)

    def _answer(self, until: float) -> Frame | str:
        """The answer to the last request; "damaged" when a frame came damaged or the device says so; else "late"."""
        while (left := until - time.monotonic()) > 0:
            try:
                self._port.timeout = left
                data = self._port.read(max(1, self._port.in_waiting))
            except OSError as error:
                raise self._lost(error) from error
            self.traffic.received += len(data)
            damaged = False
            for frame in self._receiver(data):
                if frame is None or (frame.kind == ANSWER and frame.status == Status.DAMAGED):
                    damaged = True
                elif frame.status == Status.FAULT:
                    raise DeviceError(f"{self._name}: a CPU fault stopped the program; reset the device")
                elif (frame.session, frame.sequence) == (self._number, self._sequence) and frame.kind & ANSWER:
                    return frame
            if damaged:
                self.traffic.again += 1
                return "damaged"
        self.traffic.again += 1
        return "late"

    def _checked(self, frame: Frame, kind: Kind, length: int) -> bytes:
        if frame.status == Status.NO_SESSION:
            raise DeviceError(f"{self._name}: in the middle of the run it was reset, or another program talked to it")
        if frame.status == Status.OTHER_INPUT:
            raise DeviceError(f"{self._name}: the input that arrived differs from the one that was sent")
        if frame.status != Status.DONE or len(frame.payload) != length:
            raise DeviceError(
                f"{self._name}: unexpected answer to {kind.name}: status {frame.status}, "
                f"{len(frame.payload)} bytes of {length}"
            )
        return frame.payload

    def _lost(self, error: OSError) -> LostError:
        return LostError(f"{self._name}: the connection was lost: {error}")
