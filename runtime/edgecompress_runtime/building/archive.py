"""A static library: the `ar` format with a symbol index, as linkers read it (System V / GNU variant)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC = b"!<arch>\n"


def static_library(name: str, member: bytes, symbols: Sequence[str]) -> bytes:
    """One object file, called `name` (at most 15 characters are kept), that defines `symbols`."""
    names = b"".join(s.encode() + b"\0" for s in symbols)
    size = 4 + 4 * len(symbols) + len(names)
    at = len(MAGIC) + 60 + size + size % 2  # where the member's own header starts
    index = struct.pack(f">{1 + len(symbols)}I", len(symbols), *[at] * len(symbols)) + names
    return MAGIC + _member("/", index) + _member(f"{name[:15]}/", member)


def _member(name: str, data: bytes) -> bytes:
    """Dates, owners and modes are zero: the same model gives the same file."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)
