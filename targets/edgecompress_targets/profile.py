"""The profile of a device."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgecompress_targets.operators import OPERATOR_SETS


class Profile(BaseModel):
    """A device: what it is, what it loads, and how much room it has. One TOML file each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the profile, as given to --target")
    family: str = Field(min_length=1, description="family of devices that programs are built for in the same way")
    description: str = Field(min_length=1, description="example chip or board that the figures belong to")
    cpu: str = Field(min_length=1, description="LLVM's name of the processor")
    triple: str = Field(min_length=1, description="LLVM target triple")
    features: tuple[str, ...] = Field((), description="LLVM processor features, each with + or -")
    formats: tuple[Literal["onnx", "tflite"], ...] = Field(
        min_length=1, description="artifact formats that a runtime on the device loads, the usual one first"
    )
    integer_only: bool = Field(description="whether every operator must run on integers")
    io: Literal["int8", "float32"] = Field(description="type of a .tflite model's inputs and outputs")
    onnx_weights: Literal["int8", "uint8"] = Field(
        "int8",
        description="type of int8 weights in .onnx files: uint8 for x86 without VNNI, where ONNX Runtime's faster "
        "kernels for int8 saturate",
    )
    flash_bytes: int | None = Field(None, gt=0, description="bytes for program and weights; unset: no limit")
    ram_bytes: int | None = Field(None, gt=0, description="bytes of the largest contiguous memory; unset: no limit")
    operators: str = Field(description="operators that its TFLite runtime has: a name in OPERATOR_SETS")

    @property
    def loads(self) -> tuple[str, ...]:
        """The formats, and pack, for this project's own runtime and `build`, which are not for Apple's systems."""
        return self.formats if "apple" in self.triple else (*self.formats, "pack")

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.operators not in OPERATOR_SETS:
            raise ValueError(f"operators = {self.operators!r}: should be one of {', '.join(OPERATOR_SETS)}")
        if self.integer_only and self.io != "int8":
            raise ValueError('integer_only = true needs io = "int8"')
        if self.integer_only and "tflite" not in self.formats:
            raise ValueError('integer_only = true needs "tflite" among the formats')
        return self
