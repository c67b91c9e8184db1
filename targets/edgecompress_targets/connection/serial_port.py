"""The line to a microcontroller: opens it, finds the firmware at its other end, and measures inferences."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from edgecompress_targets.connection.driver import Advance, DeviceError, LostError, Measured, Program
from edgecompress_targets.connection.flash_image import Part
from edgecompress_targets.connection.session import Session, Traffic

TRIES = 3  # of what is asked over a line that was lost
T = TypeVar("T")


@dataclass(frozen=True)
class Counter:
    """What a tick of the firmware's counter is worth, and in which unit."""

    per_tick: float = 1.0
    unit: str = "cycles"


CYCLES = Counter()


class SerialPort:
    """The line to one microcontroller, opened when it is first needed and again when it was lost.

    name: of the device, for messages. url: what pyserial opens, such as /dev/ttyACM0 or socket://127.0.0.1:4444.
    patience, inference_patience: seconds to wait for an answer. ended: the reason why nothing can be behind the port
    any more, or None while something can.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        baud: int = 115_200,
        patience: float = 10,
        inference_patience: float = 120,
        counter: Counter = CYCLES,
        ended: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._name, self._url, self._baud = name, url, baud
        self._patience, self._inference = patience, inference_patience
        self._counter, self._ended = counter, ended
        self._port: Any = None
        self._session: Session | None = None
        self._traffic: list[Traffic] = []  # of each session, the last one's at the end

    @property
    def session(self) -> Session:
        """The session with the firmware; the first access opens the port. Raises DeviceError."""
        deadline = time.monotonic() + self._patience
        while self._session is None:
            self._port = self._opened()
            try:
                with self._explained():
                    self._session = Session(
                        self._port,
                        self._name,
                        baud=None if "://" in self._url else self._baud,
                        patience=self._patience,
                        inference_patience=self._inference,
                    )
                self._traffic.append(self._session.traffic)
            except LostError:  # a board that starts may show its port twice
                self.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            except BaseException:
                self.close()
                raise
        return self._session

    def require(self, program: Program) -> None:
        """Raises DeviceError unless the firmware runs this program's model."""
        found = self.session.hello
        if (found.digest, found.input_bytes, found.output_bytes) != (
            program.digest,
            program.input_bytes,
            program.output_bytes,
        ):
            raise DeviceError(
                f"{self._name}: its firmware holds the model with digest {found.digest[:12]}, not "
                f"{program.digest[:12]}: flash it first"
            )

    def require_flash(self, parts: Iterable[Part]) -> None:
        """Raises DeviceError unless these parts are in the device's memory, which the device reads back itself."""
        for address, content in parts:
            found = self._asked(partial(Session.checksum, address=address, length=len(content)))
            if found != zlib.crc32(content):
                raise DeviceError(
                    f"{self._name}: its flash at {address:#x} differs from what was sent (CRC-32): flash it again"
                )

    def measure(self, inputs: bytes, advance: Advance | None = None) -> Measured:
        """Runs all records of inputs, one after the other. Raises DeviceError."""
        size, before = self.session.hello.input_bytes, len(self._traffic) - 1
        outputs, counts = [], []
        for at in range(0, len(inputs), size):
            output, count = self._asked(partial(Session.infer, record=inputs[at : at + size]))
            outputs.append(output)
            counts.append(self._in_units(count))
            if advance is not None:
                advance(1)
        last, record = self.session, inputs[-size:]

        def rest(session: Session) -> tuple[tuple[int, ...], int]:
            if session is not last:
                session.infer(record)  # a board that was reset knows of none
            return session.steps(), session.stack()

        steps, stack = self._asked(rest)
        notes = tuple(_notes(self._traffic[before:]))
        return Measured(
            b"".join(outputs), tuple(counts), self._counter.unit, stack, tuple(map(self._in_units, steps)), notes
        )

    def _asked(self, ask: Callable[[Session], T]) -> T:
        """The answer of the session. When the line is lost, a new session with the same program is asked again."""
        before = self.session.hello
        for _ in range(TRIES - 1):
            try:
                with self._explained():
                    return ask(self.session)
            except LostError:
                self.close()
            if self.session.hello != before:
                raise DeviceError(f"{self._name}: the connection was lost, and the device now runs another program")
        with self._explained():
            return ask(self.session)

    def close(self) -> None:
        """Closes the line; the next call opens it again."""
        if self._port is not None:
            self._port.close()
        self._port = self._session = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Within the context an error is replaced by the reason why the device is gone, where that is known."""
        try:
            yield
        except DeviceError as error:
            time.sleep(0.1)  # what cut the connection may not quite have ended yet
            if reason := self._ended():
                raise DeviceError(f"{self._name}: {reason}") from error
            raise

    def _in_units(self, ticks: int) -> int:
        return round(ticks * self._counter.per_tick)

    def _opened(self) -> Any:
        """Opens the port; a board that was just flashed takes a while to show it again."""
        deadline = time.monotonic() + self._patience
        while True:
            if reason := self._ended():
                raise DeviceError(f"{self._name}: {reason}")
            try:
                return open_port(self._name, self._url, self._baud)
            except DeviceError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _notes(traffic: Sequence[Traffic]) -> Iterator[str]:
    """Notes on lost frames and connections, from the sessions of one line in their order."""
    again, frames = (sum(getattr(t, name) for t in traffic) for name in ("again", "frames"))
    if again > frames // 100:
        yield f"{again:,} of {frames:,} frames were sent again"
    if len(traffic) > 1:
        yield f"the connection was lost and opened again, {len(traffic) - 1} x"


def open_port(name: str, url: str, baud: int) -> Any:
    """A pyserial port that nobody else has open. Raises DeviceError."""
    import serial

    try:
        only = {} if "://" in url else {"exclusive": True}
        return serial.serial_for_url(url, baudrate=baud, timeout=1, write_timeout=5, **only)
    except (OSError, ValueError) as error:
        raise DeviceError(f"{name}: {url} can't be opened: {error}") from error
