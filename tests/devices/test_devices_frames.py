"""The serial protocol's frames: whatever the line does, a frame is right or it is none."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress_targets.connection import session
from edgecompress_targets.connection.frames import ANSWER, Frame, Kind, Receiver, decoded, stuffed, unstuffed

FRAMES = st.builds(
    Frame,
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=600),
)


@given(st.one_of(st.binary(max_size=1000), st.integers(0, 600).map(lambda n: b"x" * n)))
def test_stuffing_leaves_no_zeros_costs_a_byte_in_254_and_is_undone(data: bytes) -> None:
    line = stuffed(data)
    assert 0 not in line and len(line) <= len(data) + 1 + len(data) // 254
    assert unstuffed(line) == data


@given(st.binary(max_size=300))
def test_no_line_makes_the_receiver_fail(line: bytes) -> None:
    unstuffed(line.replace(b"\0", b"\1"))
    assert all(frame is None or isinstance(frame, Frame) for frame in Receiver()(line))


@given(FRAMES, st.binary(max_size=50), st.integers(1, 40))
def test_after_noise_the_next_frame_arrives_however_it_is_split(frame: Frame, noise: bytes, size: int) -> None:
    receiver, line = Receiver(), noise + frame.encoded()
    found = [f for at in range(0, len(line), size) for f in receiver(line[at : at + size])]
    assert found[-1] == frame


@settings(max_examples=300)
@given(FRAMES, st.data())
def test_a_changed_or_lost_byte_never_gives_another_frame(frame: Frame, data: st.DataObject) -> None:
    line = bytearray(frame.encoded())
    at = data.draw(st.integers(0, len(line) - 1))
    change = data.draw(st.integers(0, 255))
    if change:
        line[at] ^= change
    else:
        del line[at]
    assert all(found in (None, frame) for found in Receiver()(bytes(line)))


class Starting:
    """A board that does not hear the first `deaf` requests, and then answers HELLO and STATISTICS."""

    timeout: float | None = None

    def __init__(self, deaf: int) -> None:
        self._deaf, self._answers = deaf, b""

    def write(self, line: bytes) -> int:
        request = decoded(line.strip(b"\0"))
        assert request is not None
        self._deaf -= 1
        if self._deaf < 0:
            payload = HELLO if request.kind == Kind.HELLO else bytes(4)
            self._answers += replace(request, kind=request.kind | ANSWER, payload=payload).encoded()
        return len(line)

    def read(self, size: int = 1) -> bytes:
        answers, self._answers = self._answers[:size], self._answers[size:]
        return answers

    @property
    def in_waiting(self) -> int:
        return len(self._answers)


HELLO = b"\1\0" + (256).to_bytes(2, "little") + struct.pack("<4I", 1, 1, 1, 0) + bytes(32)


def test_what_a_starting_board_did_not_hear_was_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_WAIT", 0.05)
    board = session.Session(Starting(deaf=2), "board")
    board.stack()
    assert (board.traffic.frames, board.traffic.again) == (1, 0)


def test_the_specifications_example() -> None:
    """PROTOCOL.md shows this frame."""
    frame = Frame(session=0x1234, sequence=1, kind=1)
    assert frame.encoded().hex(" ") == EXAMPLE
    assert decoded(frame.encoded().strip(b"\0")) == frame


EXAMPLE = "00 04 34 12 01 02 01 05 de 76 ae 95 00"
