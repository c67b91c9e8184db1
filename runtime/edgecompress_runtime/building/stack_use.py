"""How much stack compiled code takes, read from the assembly text that LLVM writes."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Instructions:
    """frame: what takes stack; its groups say how much. call: what goes to another function and its name. unknown: what
    takes an amount that the text does not have. pushed: bytes that a call takes itself."""

    frame: re.Pattern[str]
    call: re.Pattern[str]
    unknown: re.Pattern[str]
    pushed: int = 0


def _instructions(frame: str, call: str, unknown: str, pushed: int = 0) -> Instructions:
    return Instructions(
        re.compile(rf"^\s+(?:{frame})"),
        re.compile(rf"^\s+(?:{call})\s+(\w+)(?:@PLT)?\s*$"),
        re.compile(rf"^\s+(?:{unknown})"),
        pushed,
    )


# by how a triple starts
INSTRUCTIONS = {
    "thumb": _instructions(
        r"(?:v?push(?:\.w)?|stmdb(?:\.w)?\s+sp!,|vstmdb\s+sp!,)\s*\{(?P<registers>[^}]*)\}"
        r"|sub(?:\.w)?\s+sp,(?:\s*sp,)?\s*#(?P<bytes>\d+)|str(?:\.w)?\s+\S+,\s*\[sp, #-(?P<more>\d+)\]!",
        r"bl|b(?:\.w)?",
        r"sub(?:\.w)?\s+sp, (?:sp, )?r|add\s+sp, r|mov\s+sp, r",
    ),
    "aarch64": _instructions(
        r"sub\s+sp, sp, #(?P<bytes>\d+)(?P<pages>, lsl #12)?|st[rp]\s.*\[sp, #-(?P<more>\d+)\]!",
        r"bl|b",
        r"sub\s+sp, (?:sp, )?x|and\s+sp, x",
    ),
    "riscv": _instructions(r"addi\s+sp, sp, -(?P<bytes>\d+)", r"call|tail", r"sub\s+sp, sp, [a-z]"),
    "x86_64": _instructions(
        r"(?P<pushed>pushq)|subq\s+\$(?P<bytes>\d+), %rsp|andq\s+\$-(?P<aligned>\d+), %rsp",
        r"callq|jmp",
        r"subq\s+%\w+, %rsp",
        8,
    ),
}


def stack_bytes(assembly: str, entry: str, triple: str) -> int | None:
    """Bytes of stack of `entry`: its frame and the deepest chain of frames below it; None where that is unknown."""
    known = next((i for start, i in INSTRUCTIONS.items() if triple.startswith(start)), None)
    if known is None:
        return None
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    current = ""
    for line in assembly.splitlines():
        if label := re.match(r"^(\w+):", line):
            current = label[1]
            frames[current], calls[current] = known.pushed, set()
        elif found := known.frame.match(line):
            frames[current] += _frame(found)
        elif found := known.call.match(line):
            calls[current].add(found[1])
        elif known.unknown.match(line):
            return None

    def depth(name: str) -> int:
        inner = (depth(callee) for callee in calls[name] - {name} if callee in frames)
        return frames[name] + max(inner, default=0)

    return depth(entry)


def _frame(found: re.Match[str]) -> int:
    groups = found.groupdict()
    if registers := groups.get("registers"):
        return sum(_registers(part.strip()) for part in registers.split(","))
    if groups.get("pushed"):
        return 8
    if aligned := groups.get("aligned"):
        return int(aligned) - 1
    return int(groups["bytes"] or groups["more"]) * (4096 if groups.get("pages") else 1)


def _registers(part: str) -> int:
    """Bytes of "r4", "r4-r7", "d8" or "d8-d11"."""
    first, _, last = part.partition("-")
    count = int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count * (8 if first.startswith("d") else 4)
