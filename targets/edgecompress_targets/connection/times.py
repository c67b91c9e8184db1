"""Reads the times of inferences that a program on the device writes: int64, nanoseconds, little endian."""

from __future__ import annotations

import struct

from edgecompress_targets.connection.driver import DeviceError

MOST_NANOSECONDS = 10**16  # of one inference: 115 days


def from_file(content: bytes, count: int, name: str) -> tuple[int, ...]:
    """The times of `count` inferences. name: the device's name. Raises DeviceError when there are more or fewer."""
    if len(content) != 8 * count:
        raise DeviceError(f"{name}: {len(content)} bytes of times came back, expected {count} x 8")
    times = struct.unpack(f"<{count}q", content)
    if times and not 0 <= min(times) <= max(times) <= MOST_NANOSECONDS:
        raise DeviceError(f"{name}: an inference can't have taken {min(times)} to {max(times)} ns, as the device says")
    return times
