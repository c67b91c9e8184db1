"""64-bit Arm under Linux or Android: a shared library, and a command-line program that needs no other file."""

from __future__ import annotations

from edgecompress_targets.aarch64.linker import images
from edgecompress_targets.profile import Profile


class AArch64:
    """See platform.Platform."""

    def images(self, name: str, model: bytes, model_h: str, profile: Profile) -> dict[str, bytes]:
        return images(name, model, model_h)

    def image(self, name: str) -> str:
        return f"{name}_run"
