"""Linking for Cortex-M: firmware for the boards that QEMU emulates."""

from __future__ import annotations

from edgecompress_targets.cortex_m.boards import BOARDS, Board
from edgecompress_targets.cortex_m.firmware_image import images
from edgecompress_targets.profile import Profile
from edgecompress_targets.tools import ToolError


class CortexM:
    """The platform (`platforms.Platform`) of Cortex-M."""

    def images(self, name: str, model: bytes, model_h: str, profile: Profile) -> dict[str, bytes]:
        """The firmware NAME.elf for the emulated board with the profile's CPU. Raises ToolError when there is none."""
        hard_float = profile.triple.endswith("hf")
        return images(name, model, model_h, _board(profile), cpu=profile.cpu, hard_float=hard_float)

    def image(self, name: str) -> str:
        """The firmware's file name."""
        return f"{name}.elf"


def _board(profile: Profile) -> Board:
    if profile.cpu not in BOARDS:
        raise ToolError(f"QEMU emulates no board with a {profile.cpu}")
    return BOARDS[profile.cpu]
