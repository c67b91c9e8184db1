"""Chooses the CPU that qemu-aarch64 emulates for a profile."""

from __future__ import annotations

from edgecompress_targets.profile import Profile
from edgecompress_targets.user_emulation import UserEmulator

QEMU = "qemu-aarch64"
# what a profile promises, and nothing newer: the first whose feature it has
CPUS = {"+dotprod": "cortex-a76", "": "cortex-a53"}


def emulator_of(profile: Profile) -> UserEmulator:
    """QEMU's user-mode emulator, with a CPU that has the profile's features and as few others as possible."""
    return UserEmulator(QEMU, next(cpu for feature, cpu in CPUS.items() if not feature or feature in profile.features))
