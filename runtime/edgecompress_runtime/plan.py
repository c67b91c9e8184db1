"""A lowered graph as the runtime sees it: tensors and operators, as in a `.tflite` file.

Operators, options and enumerations are those of the TFLite schema (schema.fbs), TABLE and EXIT; images are NHWC.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgecompress_runtime.options import Options

EXIT = "EXIT"  # the kind of operator behind which a plan may end


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor; real = scale * (stored - zero_point) where `scale` is given.

    scale: float32 [1] or [channels] along `axis`, empty when not quantized. zero_point: int32, same shape.
    data: the array of a constant, None for a computed tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_point: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    axis: int = 0
    data: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def zero(self) -> int:
        """Zero point of a per-tensor quantized tensor."""
        return int(self.zero_point[0])

    @property
    def is_int8(self) -> bool:
        """Whether elements are int8, as those of quantized weights and of most quantized activations."""
        return self.dtype == np.int8

    @property
    def is_int16(self) -> bool:
        """Whether it has quantized activations of 16 bits; their zero point is 0."""
        return self.dtype == np.int16 and self.scale.size > 0


@dataclass(frozen=True)
class KeptState:
    """Bytes of the memory that a compiled plan works in, which one run leaves for the next. fill: what each of them is
    at first, as int8.
    """

    name: str
    offset: int
    size: int
    fill: int


@dataclass(frozen=True, eq=False)
class Operator:
    """kind: builtin name ("CONV_2D"). inputs, outputs: tensor indices, -1 for an absent optional input.
    options: of the type that the kind has in `operators.RECORDS`."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, eq=False)
class Plan:
    """Operators in an order in which they can run; inputs and outputs are tensor indices.

    Where the result of an EXIT is true, the plan ends behind it: its operands behind the first are the outputs then.
    states: pairs of places among inputs and outputs. The output is the input of the next run, and the first run's is
    zero; callers see neither.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    states: tuple[tuple[int, int], ...] = ()

    @property
    def given(self) -> tuple[int, ...]:
        """The inputs that a caller gives."""
        kept = {place for place, _ in self.states}
        return tuple(index for place, index in enumerate(self.inputs) if place not in kept)

    @property
    def taken(self) -> tuple[int, ...]:
        """The outputs that a caller gets."""
        kept = {place for _, place in self.states}
        return tuple(index for place, index in enumerate(self.outputs) if place not in kept)
