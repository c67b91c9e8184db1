"""Boards that QEMU emulates, one for each CPU: where memory lies, and how instructions are counted.

Memory maps: Arm AN385, AN386, AN500, AN505, AN547 (application notes on the MPS2 and MPS3 FPGA images), as
QEMU's hw/arm/mps2.c and mps2-tz.c implement them. Under `-icount shift=0` one instruction takes 1 ns of the
emulated time that SysTick counts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A region of memory: its first address and its length in bytes."""

    origin: int
    length: int


@dataclass(frozen=True)
class Board:
    """A board that QEMU emulates.

    vectors: the memory that the CPU boots from. code: where program and constants lie, which may be the same region.
    ram: everything else. systick_hz: the clock of SysTick. uart: the address of the first CMSDK UART, the secure one
    where there are two.
    """

    machine: str
    vectors: Region
    code: Region
    ram: Region
    systick_hz: int
    uart: int

    @property
    def instructions_per_tick(self) -> float:
        """How many instructions QEMU executes between two ticks of SysTick."""
        return 1e9 / self.systick_hz


MB = 1 << 20
_MPS2_FLASH, _MPS2_RAM = Region(0x00000000, 4 * MB), Region(0x20000000, 4 * MB)


def _mps2(machine: str) -> Board:
    return Board(machine, _MPS2_FLASH, _MPS2_FLASH, _MPS2_RAM, 25_000_000, 0x40004000)


# QEMU has no Cortex-M0 board that is large enough: the M3 executes all of Armv6-M
BOARDS = {
    "cortex-m0": _mps2("mps2-an385"),
    "cortex-m3": _mps2("mps2-an385"),
    "cortex-m4": _mps2("mps2-an386"),
    "cortex-m7": _mps2("mps2-an500"),
    "cortex-m33": Board("mps2-an505", Region(0x10000000, 4 * MB), Region(0x10000000, 4 * MB),
                        Region(0x38000000, 4 * MB), 20_000_000, 0x50200000),
    "cortex-m55": Board("mps3-an547", Region(0x10000000, 512 * 1024), Region(0x11000000, 2 * MB),
                        Region(0x31000000, 4 * MB), 32_000_000, 0x59303000),
}  # fmt: skip
