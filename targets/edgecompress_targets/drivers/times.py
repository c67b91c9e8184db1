"""Times of inferences as a program on the device writes them: int64, nanoseconds, little endian."""

from __future__ import annotations

import struct

from edgecompress_targets.drivers.driver import DeviceError


def from_file(content: bytes, count: int, name: str) -> tuple[int, ...]:
    """name: of the device. Raises DeviceError unless there are `count` of them."""
    if len(content) != 8 * count:
        raise DeviceError(f"{name}: {len(content)} bytes of times came back, expected {count} x 8")
    return struct.unpack(f"<{count}q", content)
