"""What every way to reach a device can do: `probe, deploy, run, remove`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edgecompress_targets.tools import ToolError

Advance = Callable[[int], None]  # called with the number of inferences done since the last call


class DeviceError(ToolError):
    """A device that can't be reached, refuses, or answers wrongly. The message says which, and what to do."""


class LostError(DeviceError):
    """The connection failed or ended: the same may work when it is tried again."""


@dataclass(frozen=True)
class Summary:
    """What a program says of times that it keeps to itself: nanoseconds. median: None where it does not say."""

    runs: int
    min: float
    max: float
    mean: float
    spread: float
    median: float | None


@dataclass(frozen=True)
class Benchmark:
    """A program on the device that times a model on inputs of its own. start: the words of the command, in which {runs}
    stands for the number of inferences. parse: of what it prints, or of its file `result`: each inference's
    nanoseconds, or a summary; raises DeviceError. warmup: inferences that it runs first. name: what it is called."""

    start: tuple[str, ...]
    parse: Callable[[str], Summary | tuple[int, ...]]
    result: str | None
    warmup: int
    name: str


@dataclass(frozen=True)
class Program:
    """What runs one artifact on a device.

    name: a folder's or file's name on the device. digest: SHA-256 of the artifact, hexadecimal. input_bytes,
    output_bytes: of one inference's record. files: by name. start: for Linux, the words of the command, in which
    {inputs}, {outputs} and {times} stand for files; for a board, the one file to flash. machine: what `uname -m` has
    to say for it to run, "" for any. benchmark: what runs the files instead of `start`.
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
    """What `probe` found: the device in words, and facts by name."""

    description: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """outputs: the records' outputs, one after the other. counts: of each inference, in `unit` ("instructions",
    "cycles" or "ns"). stack: bytes used at most, None where it can't be told. steps: of each step of the last
    inference, for profiled programs. energy: microjoules of the whole device's processor over the run, start-up
    included; None where it does not tell. notes: what should be read beside the figures. summary: in place of counts,
    and of outputs, where a benchmark gives no more."""

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
        """Of the last inference."""
        return self.counts[-1]


class Driver(Protocol):
    """One device. All methods raise DeviceError, in bounded time, and leave nothing half written behind."""

    def probe(self) -> Found:
        """What is there now."""
        ...

    def deploy(self, program: Program) -> None:
        """Put the program on the device and check what arrived. The one before stays until the new one answered."""
        ...

    def run(self, program: Program, inputs: bytes, advance: Advance | None = None) -> Measured:
        """The deployed program on records of the model's inputs, one after the other."""
        ...

    def keep(self, program: Program) -> None:
        """`remove` shall leave the deployed program on the device."""
        ...

    def remove(self, program: Program) -> None:
        """Take the program off the device, as far as it can be; end what runs there."""
        ...

    def close(self) -> None:
        """End the connection; the next call opens it again."""
        ...
