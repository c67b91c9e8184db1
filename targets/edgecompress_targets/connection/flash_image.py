"""Reads which bytes an ELF or Intel HEX file puts where in flash."""

from __future__ import annotations

import struct
from collections.abc import Callable

Part = tuple[int, bytes]  # address, content

LOAD = 1  # p_type of what is loaded


def parts(name: str, content: bytes) -> list[Part] | None:
    """(address, bytes) of each part; None for a file that does not say where it goes. Raises ValueError when it is
    damaged.
    """
    reader = READERS.get(name.rpartition(".")[2].lower())
    try:
        return None if reader is None else reader(content)
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"{name}: not a whole file of its kind: {error}") from error


def _elf(content: bytes) -> list[Part]:
    """Reads the program headers of a 32-bit, little-endian ELF file ("Tool Interface Standard: ELF", 1995)."""
    if content[:6] != b"\x7fELF\x01\x01":
        raise ValueError("not a 32-bit ELF file")
    at, size, count = (*struct.unpack_from("<I", content, 28), *struct.unpack_from("<2H", content, 42))
    found = []
    total = 0
    for start in range(at, at + size * count, size):
        kind, offset, _, address, length = struct.unpack_from("<5I", content, start)
        if kind == LOAD and length:
            if offset + length > len(content):
                raise ValueError(f"it ends before byte {offset + length}")
            total += length
            if total > len(content):
                raise ValueError("its parts overlap in the file")
            found.append((address, content[offset : offset + length]))
    return found


def _hex(content: bytes) -> list[Part]:
    """Records of data (00), end (01), and upper address bits (02, 04); start addresses (03, 05) say nothing here. What
    follows on is joined."""
    found: list[tuple[int, bytearray]] = []
    base, kind = 0, -1
    for line in content.decode("ascii").split():
        record = bytes.fromhex(line.removeprefix(":"))
        if sum(record) & 0xFF or len(record) != record[0] + 5:
            raise ValueError(f"wrong checksum or length in line {line}")
        kind, data = record[3], record[4:-1]
        if kind == 0:
            address = base + int.from_bytes(record[1:3], "big")
            if not found or found[-1][0] + len(found[-1][1]) != address:
                found.append((address, bytearray()))
            found[-1][1].extend(data)
        elif kind in (2, 4):
            base = int.from_bytes(data, "big") << (4 if kind == 2 else 16)
    if kind != 1:
        raise ValueError("it has no end-of-file record")
    return [(address, bytes(data)) for address, data in found]


READERS: dict[str, Callable[[bytes], list[Part]]] = {"elf": _elf, "hex": _hex}
