"""What an emulator has to say of a program that ran a model."""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress_targets.tools import ToolError


class EmulatorError(ToolError):
    """The program failed in the emulator, or did not end in time."""


@dataclass(frozen=True)
class Run:
    """outputs: the records' outputs, one after the other. counts: instructions of each inference (empty where
    they can't be counted). stack: bytes used at most, None where it can't be told. steps: instructions of each
    step of the last inference, for profiled programs."""

    outputs: bytes
    counts: tuple[int, ...] = ()
    stack: int | None = None
    steps: tuple[int, ...] = ()

    @property
    def instructions(self) -> int:
        """Of the last inference."""
        return self.counts[-1]
