"""What each layer of a plan costs on a device, as `profile` writes it down."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LayerCost(BaseModel):
    """One operator of the plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="of its first output")
    operator: str
    shape: tuple[int, ...] = Field(description="of its first output, channels last")
    macs: int = Field(description="multiply-accumulates of its formula, zeros among them")
    constant_bytes: int = Field(description="of its weights and other constants, not coded")
    kernels: int = Field(description="calls that compute it")
    cost: float = Field(description="of one inference, in the profile's unit")


class LayerCosts(BaseModel):
    """All of them, in the order of execution."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    artifact: str
    device: str
    target: str | None
    emulated: bool
    kernels: str = Field(description="family of CPUs whose kernels were used")
    unit: Literal["instructions", "cycles", "ns"]
    runs: int = Field(description="inferences: the median is given where time is measured, the last where counted")
    total: float = Field(description="of the whole inference, what lies between layers included")
    layers: list[LayerCost]
