"""The drivers by name, and the devices that need no configuration."""

from __future__ import annotations

from edgecompress_targets.drivers.adb import AdbSettings
from edgecompress_targets.drivers.emulated_board import EmulatedBoardSettings
from edgecompress_targets.drivers.local import LocalSettings
from edgecompress_targets.drivers.serial_device import SerialSettings
from edgecompress_targets.drivers.settings import Settings
from edgecompress_targets.drivers.ssh import SshSettings

DRIVERS: dict[str, type[Settings]] = {
    "adb": AdbSettings,
    "emulator": EmulatedBoardSettings,
    "local": LocalSettings,
    "serial": SerialSettings,
    "ssh": SshSettings,
}

_CPUS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
BUILT_IN: dict[str, Settings] = {
    "local": LocalSettings(),
    **{f"qemu-{cpu.removeprefix('cortex-')}": EmulatedBoardSettings(target=cpu, cpu=cpu) for cpu in _CPUS},
    "qemu-aarch64": LocalSettings(target="raspberry-pi", prefix=("qemu-aarch64", "-cpu", "cortex-a53")),
    "qemu-aarch64-dot": LocalSettings(target="raspberry-pi-5", prefix=("qemu-aarch64", "-cpu", "cortex-a76")),
    "qemu-riscv32": LocalSettings(target="riscv32", prefix=("qemu-riscv32", "-cpu", "rv32")),
    "qemu-riscv64": LocalSettings(target="linux-riscv64", prefix=("qemu-riscv64", "-cpu", "rv64")),
}
