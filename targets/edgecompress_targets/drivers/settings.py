"""The configuration that every device has; each driver adds what it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import BaseModel, ConfigDict, Field

from edgecompress_targets.connection.driver import Driver
from edgecompress_targets.profile import Profile


class Settings(BaseModel, ABC):
    """One device: a table [devices.NAME] of devices.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: str = Field(description="how the device is reached")
    target: str = Field(description="name of the device's profile, as given to --target")
    timeout: float = Field(20, gt=0, description="seconds to wait for an answer before giving up")
    inference_timeout: float = Field(300, gt=0, description="largest number of seconds for one inference")

    @abstractmethod
    def open(self, name: str) -> Driver:
        """The driver of this device; the device is not reached yet."""

    def can_be(self, target: Profile) -> bool:
        """Whether the device can be of this target; most drivers reach devices with an operating system."""
        return "linux" in target.triple

    @property
    def runs(self) -> str:
        """What the device runs: "firmware", or "program" under Linux or Android."""
        return "program"

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of artifacts that it can run."""
        return ("pack",)

    @property
    def emulated(self) -> bool:
        """Whether the device is emulated, so that its clock says nothing."""
        return False

    @property
    def resource(self) -> str | None:
        """What only one run can use at a time; None where every run has its own."""
        return None
