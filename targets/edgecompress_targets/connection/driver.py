"""The interface of every driver of a device: probe, deploy, run, keep, remove, close."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edgecompress_targets.tools import ToolError

Advance = Callable[[int], None]  # called with the number of inferences done since the last call


LONGEST_MESSAGE = 500  # characters


class DeviceError(ToolError):
    """A device can't be reached, refuses, or answers wrongly. The message says which device, and what to do; it is one
    line, whatever the device said.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 3]}...")


class LostError(DeviceError):
    """The connection failed or ended; another try may succeed."""


@dataclass(frozen=True)
class Summary:
    """Statistics in nanoseconds from a program that does not tell each time. median: None where it is not told."""

    runs: int
    min: float
    max: float
    mean: float
    spread: float
    median: float | None


@dataclass(frozen=True)
class Benchmark:
    """A program on the device that times a model on inputs of its own.

    start: the words of the command, in which {runs} stands for the number of inferences. parse: turns what the program
    prints, or its file `result`, into the nanoseconds of each inference or a summary; raises DeviceError. warmup:
    inferences that it runs first. name: the program's name in reports.
    """

    start: tuple[str, ...]
    parse: Callable[[str], Summary | tuple[int, ...]]
    result: str | None
    warmup: int
    name: str


@dataclass(frozen=True)
class Program:
    """The files that run one artifact on a device.

    name: the name of a folder or file on the device. digest: the SHA-256 of the artifact, hexadecimal. input_bytes,
    output_bytes: the sizes of one inference's record. files: contents by name. start: for Linux, the words of the
    command, in which {inputs}, {outputs} and {times} stand for files; for a board, the one file to flash. machine: what
    `uname -m` must print for the program to run, or "" for anything. benchmark: runs the files instead of `start`.
    """

    name: str
    digest: str
    input_bytes: int
    output_bytes: int
    files: Mapping[str, bytes]
    start: tuple[str, ...]
    machine: str = ""
    benchmark: Benchmark | None = None


@dataclass(frozen=True)
class Found:
    """The device in words, and facts about it by name."""

    description: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """The results of a run.

    outputs: the outputs of all records, one after the other. counts: one for each inference, in `unit` ("instructions",
    "cycles" or "ns"). stack: the most bytes of stack used, or None where that can't be told. steps: the counts of each
    step of the last inference, for profiled programs. energy: microjoules of the device's whole processor over the run,
    start-up included, or None. notes: what to read beside the figures. summary: stands in place of counts and outputs
    where a benchmark gives no more.
    """

    outputs: bytes
    counts: tuple[int, ...]
    unit: str
    stack: int | None = None
    steps: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    summary: Summary | None = None
    energy: int | None = None

    @property
    def instructions(self) -> int:
        """The count of the last inference."""
        return self.counts[-1]


class Driver(Protocol):
    """One device. All methods raise DeviceError, end in bounded time, and leave nothing half written on the device."""

    def probe(self) -> Found:
        """Finds out what the device is."""
        ...

    def deploy(self, program: Program) -> None:
        """Puts the program on the device and checks what arrived. An earlier program stays until the new one has
        answered.
        """
        ...

    def run(self, program: Program, inputs: bytes, advance: Advance | None = None) -> Measured:
        """Runs the deployed program on records of the model's inputs, one after the other."""
        ...

    def keep(self, program: Program) -> None:
        """Makes `remove` leave the deployed program on the device."""
        ...

    def remove(self, program: Program) -> None:
        """Removes the program from the device as far as possible, and ends what still runs there."""
        ...

    def close(self) -> None:
        """Ends the connection; the next call opens it again."""
        ...
