"""The cycle model of the benchmarks: what Arm's manuals say of short pieces of code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emulators import needs

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from cycles import counts, plugin

# What Cortex-M0, M3 and M4 take. r1 is the address of a word that holds its own address; N: the CPU has no such.
N = None
CODE: dict[str, tuple[int | None, int | None, int | None]] = {
    "": (0, 0, 0),
    "ldr r0, [r1]; ldr r2, [r1, #4]": (4, 3, 3),
    "ldr r0, [r1]; str r0, [r1, #8]": (4, 3, 3),
    "ldr r0, [r1]; ldr r2, [r1]; ldr r3, [r1]": (6, 4, 4),
    "ldr r0, [r1]; ldr r2, [r0]": (4, 4, 4),
    "ldr r0, [r1]; adds r0, r0, r0; ldr r2, [r1]": (5, 5, 5),
    "str r0, [r1, #8]; ldr r2, [r1]": (4, 3, 3),
    "ldm r6!, {r2, r3, r7}": (4, 4, 4),
    "push {r4, r5, r6}; pop {r4, r5, r6}": (8, 8, 8),
    "adds r0, r0, #1; lsls r0, r0, #2; muls r0, r2, r0": (3, 3, 3),
    "b 1f; nop; 1:": (3, 3, 3),
    "movs r0, #3; 1: subs r0, r0, #1; bne 1b": (11, 11, 11),
    "ldrd r2, r3, [r1]": (N, 3, 3),
    "mla r0, r2, r3, r4": (N, 2, 1),
    "smull r0, r2, r3, r4": (N, 4, 1),
    "udiv r0, r2, r1": (N, 6, 6),
    "smlad r0, r2, r3, r4": (N, N, 1),
    "ldr r0, [r1, r5]; ldr.w r2, [r1, r5, lsl #2]; ldrsb.w r3, [r1, #-1]": (N, 4, 4),
    "vldr s0, [r1]; vmul.f32 s0, s0, s0; vfma.f32 s0, s0, s0; vdiv.f32 s1, s0, s0": (N, N, 20),
}
START = """
.syntax unified
.thumb
.section .vectors, "a"
.word 0x20001000, reset + 1
.text
.thumb_func
mark: bx lr
.thumb_func
reset:
{floats}
ldr r1, =0x20000000
str r1, [r1]
movs r5, #0
mov r6, r1
movs r4, #3
movs r3, #3
movs r2, #3
{code}
bl mark
ldr r1, =0x20026
movs r0, #0x18
bkpt 0xab
"""
FLOATS = "ldr r0, =0xe000ed88; ldr r1, =0x00f00000; str r1, [r0]; dsb; isb"
BOARDS = {"cortex-m0": "mps2-an385", "cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386"}


@needs("qemu-system-arm", "arm-none-eabi-gcc", "x86_64-linux-gnu-gcc")
@pytest.mark.parametrize("number", range(len(BOARDS)), ids=list(BOARDS))
def test_code_takes_the_cycles_of_the_manual(number: int, tmp_path: Path) -> None:
    cpu = list(BOARDS)[number]
    known = {code: row[number] for code, row in CODE.items() if row[number] is not None}
    body = "\n".join(f"bl mark\n{code}" for code in known)
    (tmp_path / "code.s").write_text(START.format(code=body, floats=FLOATS if cpu == "cortex-m4" else ""))
    (tmp_path / "code.ld").write_text(
        "SECTIONS { .vectors 0 : { *(.vectors) } .text : { *(.text*) *(.data*) } } ENTRY(reset)"
    )
    elf = tmp_path / "code.elf"
    floats = ["-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"] if cpu == "cortex-m4" else []
    compiler = ["arm-none-eabi-gcc", "-mcpu=" + cpu, "-mthumb", *floats, "-nostdlib", "-T", tmp_path / "code.ld"]
    subprocess.run([*compiler, tmp_path / "code.s", "-o", elf], check=True)
    options, log = plugin(elf, cpu, "mark", tmp_path)
    emulator = ["qemu-system-arm", "-M", BOARDS[cpu], "-kernel", elf, "-display", "none", "-monitor", "none"]
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    subprocess.run([*emulator, "-serial", "none", *semihosting, *options], timeout=20, check=False)
    nothing, *rest = (count.cycles for count in counts(log))
    assert nothing == (7 if cpu == "cortex-m0" else 6), "a call and a return"
    assert dict(zip(list(known)[1:], (cycles - nothing for cycles in rest), strict=True)) == {
        code: cycles for code, cycles in known.items() if code
    }
