"""Frames of the serial protocol (PROTOCOL.md): COBS between zeros, a header, and a CRC-32."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<HHBB")  # session, sequence number, kind, status
CHECKSUM = struct.Struct("<I")
ANSWER = 0x80  # added to the kind of a request
FULL = 254  # bytes of a COBS block that stands for no zero


class Kind(IntEnum):
    """What a request asks for (PROTOCOL.md, requests)."""

    HELLO = 1
    WRITE = 2
    INVOKE = 3
    READ = 4
    STATISTICS = 5
    STEPS = 6
    MEMORY = 7


class Status(IntEnum):
    """How a request ended (PROTOCOL.md, answers)."""

    DONE = 0
    DAMAGED = 1
    REFUSED = 2
    NO_SESSION = 3
    OTHER_INPUT = 4
    FAULT = 5


@dataclass(frozen=True)
class Frame:
    """One frame. session, sequence: 16 bits. kind: a Kind, with ANSWER added in answers."""

    session: int
    sequence: int
    kind: int
    status: int = 0
    payload: bytes = b""

    def encoded(self) -> bytes:
        """The bytes that go over the line, from zero to zero."""
        content = HEADER.pack(self.session, self.sequence, self.kind, self.status) + self.payload
        return b"\0" + stuffed(content + CHECKSUM.pack(zlib.crc32(content))) + b"\0"


def decoded(line: bytes) -> Frame | None:
    """The frame in the bytes between two zeros; None when it is damaged."""
    content = unstuffed(line)
    if content is None or len(content) < HEADER.size + CHECKSUM.size:
        return None
    body = content[: -CHECKSUM.size]
    if CHECKSUM.unpack(content[-CHECKSUM.size :])[0] != zlib.crc32(body):
        return None
    session, sequence, kind, status = HEADER.unpack_from(body)
    return Frame(session, sequence, kind, status, body[HEADER.size :])


def stuffed(data: bytes) -> bytes:
    """Consistent overhead byte stuffing (Cheshire and Baker, SIGCOMM 1997): the same without zeros.

    >>> stuffed(b"ab\\0c").hex(" ")
    '03 61 62 02 63'
    """
    result, rest = bytearray(), memoryview(data)
    while True:
        end = bytes(rest[:FULL]).find(0)
        run = min(len(rest), FULL) if end < 0 else end
        result.append(run + 1)
        result += rest[:run]
        if run == len(rest):
            return bytes(result)
        rest = rest[run + (run < FULL) :]


def unstuffed(line: bytes) -> bytes | None:
    """The bytes that `stuffed` was given; None for bytes that it never returns."""
    result, at = bytearray(), 0
    while at < len(line):
        code = line[at]
        if code == 0 or at + code > len(line):
            return None
        result += line[at + 1 : at + code]
        at += code
        if code <= FULL and at < len(line):
            result.append(0)
    return bytes(result)


class Receiver:
    """Turns bytes into frames as they come; after noise it is in step again at the next zero."""

    def __init__(self, limit: int = 4096) -> None:
        self._line, self._limit = bytearray(), limit

    def __call__(self, data: bytes) -> list[Frame | None]:
        """The frames that end in `data`, with None for each damaged one."""
        found: list[Frame | None] = []
        for byte in data:
            if byte:
                if len(self._line) <= self._limit:  # one more than a frame may have: it stays damaged
                    self._line.append(byte)
            elif self._line:
                found.append(decoded(bytes(self._line)))
                self._line.clear()
        return found
