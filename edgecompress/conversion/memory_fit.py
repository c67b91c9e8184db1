"""Whether a model has room on a device, from its shapes alone: asked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.record.units import size
from edgecompress_targets import Profile

WEIGHT_BYTES = {"int8": 1, "dynamic": 1, "float16": 2, "float32": 4}
ACTIVATION_BYTES = {"int8": 1, "dynamic": 4, "float16": 4, "float32": 4}
STORED_AS = {"dynamic": ("int8", "float")}  # weights and activations, where they differ
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class MemoryNeed:
    """What a model needs of a target, both lower bounds, and why it does not fit (empty: it does)."""

    target: str
    weight_bytes: int
    activation_bytes: int
    reasons: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the model has room on the target, as far as its shapes say."""
        return not self.reasons


def memory_need(model: ir.Model, peak_activation_elements: int, profile: Profile, encoding: str) -> MemoryNeed:
    """Compare a canonical model with a target's flash and RAM, when stored in `encoding`.

    Weights are counted as stored and biases as 4 bytes; activations as the most elements alive at once.
    File headers, the runtime's own code and its scratch buffers come on top.
    """
    weights = weight_bytes(model, encoding)
    activations = peak_activation_elements * ACTIVATION_BYTES[encoding]
    of_weights, of_activations = STORED_AS.get(encoding, (encoding, encoding))
    needs = (
        ("flash", f"{of_weights} weights", weights, profile.flash_bytes),
        ("RAM", f"{of_activations} activations", activations, profile.ram_bytes),
    )
    reasons = tuple(
        f"{what} need at least {size(needed)} of {memory}, but {profile.name} has {size(room)}"
        for memory, what, needed, room in needs
        if room is not None and needed > room
    )
    return MemoryNeed(profile.name, weights, activations, reasons)


def require_memory(need: MemoryNeed) -> None:
    """Raises UnsupportedModelError with the figures when the model does not fit."""
    if not need.fits:
        raise UnsupportedModelError(
            f"the model does not fit {need.target}: {'; '.join(need.reasons)}: use a smaller model or "
            "input, another target, or a target file with your board's own figures"
        )


def require_room(artifacts: Mapping[str, int], profile: Profile) -> None:
    """Raises UnsupportedModelError when an artifact, {name: bytes}, is larger than the target's flash."""
    for name, needed in artifacts.items():
        if profile.flash_bytes is not None and needed > profile.flash_bytes:
            raise UnsupportedModelError(
                f"{name} takes {size(needed)}, but {profile.name} has {size(profile.flash_bytes)} of flash: use a "
                "smaller model, another target, or a target file with your board's own figures"
            )


def weight_bytes(model: ir.Model, encoding: str) -> int:
    """Bytes of the model's floating-point constants: of rank 2 and more in `encoding`, others 4 each."""
    total = 0
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.dtype in FLOATS:
            shape = value.const_value.shape.numpy()
            total += math.prod(shape) * (WEIGHT_BYTES[encoding] if len(shape) > 1 else 4)
    return total
