"""How programs for a family of devices are linked: one platform for each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgecompress_targets.cortex_m.platform import CortexM
from edgecompress_targets.linux.platform import AARCH64, X86_64
from edgecompress_targets.profile import Profile
from edgecompress_targets.riscv.platform import RiscV


class Platform(Protocol):
    """The linker of a family of devices."""

    def images(self, name: str, model: bytes, model_h: str, profile: Profile) -> Mapping[str, bytes]:
        """{file name: content} of everything that can be linked from the object file `model`.

        name: a C identifier. model_h: the header that support/serve.c or runner.c includes. Raises ToolError, which
        says why nothing can be linked.
        """
        ...

    def image(self, name: str) -> str:
        """The name of the file among those that runs on a device."""
        ...


def platform_of(profile: Profile) -> Platform | None:
    """The platform for the device's family and processor; None where linking for it is not supported."""
    if profile.family == "cortex_m":
        return CortexM()
    if profile.triple.startswith("riscv"):
        return RiscV()
    linux = {"aarch64-linux": AARCH64, "x86_64-linux": X86_64}
    return next((platform for start, platform in linux.items() if profile.triple.startswith(start)), None)
