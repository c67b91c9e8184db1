"""How much flash compiled code takes."""

from __future__ import annotations

import struct

ALLOCATED = 2  # SHF_ALLOC


def section_sizes(elf: bytes) -> dict[str, int]:
    """Section -> bytes, of those that a device holds; equal names are added up. elf: little-endian, 32 or 64 bit."""
    wide = elf[4] == 2
    (table,) = struct.unpack_from("<Q" if wide else "<I", elf, 40 if wide else 32)
    entry, count, names = struct.unpack_from("<HHH", elf, 58 if wide else 46)
    form = struct.Struct("<IIQQQQ" if wide else "<IIIIII")
    rows = [form.unpack_from(elf, table + i * entry) for i in range(count)]
    texts = rows[names][4]
    sizes: dict[str, int] = {}
    for name, _, flags, _, _, size in rows:
        if flags & ALLOCATED:
            start = texts + name
            key = elf[start : elf.index(0, start)].decode()
            sizes[key] = sizes.get(key, 0) + size
    return sizes
