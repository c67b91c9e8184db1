"""How much flash and stack compiled code takes."""

from __future__ import annotations

import re
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


FRAME = re.compile(
    r"^\s+(?:(?:v?push(?:\.w)?|stmdb(?:\.w)?\s+sp!,|vstmdb\s+sp!,)\s*\{(?P<registers>[^}]*)\}"
    r"|sub(?:\.w)?\s+sp,(?:\s*sp,)?\s*#(?P<bytes>\d+)|str(?:\.w)?\s+\S+,\s*\[sp, #-(?P<one>\d+)\]!)"
)


CALL = re.compile(r"^\s+(?:bl|b(?:\.w)?)\s+(\w+)\s*$")


def stack_bytes(assembly: str, entry: str) -> int:
    """Of `entry`, an Arm function: its frame and the deepest chain of frames of what it calls in this text."""
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    current = ""
    for line in assembly.splitlines():
        if label := re.match(r"^(\w+):", line):
            current = label[1]
            frames[current], calls[current] = 0, set()
        elif found := FRAME.match(line):
            frames[current] += _frame(found)
        elif found := CALL.match(line):
            calls[current].add(found[1])

    def depth(name: str) -> int:
        inner = (depth(callee) for callee in calls[name] - {name} if callee in frames)
        return frames[name] + max(inner, default=0)

    return depth(entry)


def _frame(found: re.Match[str]) -> int:
    if (registers := found["registers"]) is None:
        return int(found["bytes"] or found["one"])
    return sum(_registers(part.strip()) for part in registers.split(","))


def _registers(part: str) -> int:
    """Bytes of "r4", "r4-r7", "d8" or "d8-d11"."""
    first, _, last = part.partition("-")
    count = int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count * (8 if first.startswith("d") else 4)
