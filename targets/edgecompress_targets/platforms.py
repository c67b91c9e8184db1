"""How programs for a family of devices are linked here: one entry a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgecompress_targets.cortex_m.platform import CortexM
from edgecompress_targets.linux.platform import AARCH64, X86_64
from edgecompress_targets.profile import Profile
from edgecompress_targets.riscv.platform import RiscV


class Platform(Protocol):
    """A family's linker."""

    def images(self, name: str, model: bytes, model_h: str, profile: Profile) -> Mapping[str, bytes]:
        """File name -> contents of everything that can be linked from an object file. name: a C identifier.
        model_h: what support/serve.c or runner.c includes. Raises ToolError that says why there is nothing."""
        ...

    def image(self, name: str) -> str:
        """Which of those files is the program that runs on a device."""
        ...


def platform_of(profile: Profile) -> Platform | None:
    """By the device's family and processor; None where nothing is known of how to link for it."""
    if profile.family == "cortex_m":
        return CortexM()
    if profile.triple.startswith("riscv"):
        return RiscV()
    linux = {"aarch64-linux": AARCH64, "x86_64-linux": X86_64}
    return next((platform for start, platform in linux.items() if profile.triple.startswith(start)), None)
