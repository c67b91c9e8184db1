"""A family of CPUs: which kernel calls an operator of a plan becomes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.families.shared.gate import Gate
from edgecompress_runtime.families.shared.layer_channels import layer_channels, simple_channels, without_hard_channels
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.kernels import KERNELS
from edgecompress_runtime.kernels.registry import has_int16
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor

# (inputs, outputs, options) -> steps, or None where the ordinary kernel has to do it; options: of the operator's type
Prepare = Callable[[Sequence[Any], Sequence[Tensor], Any], list[Step] | None]
# (inputs, outputs, options, gates of what it reads and of what it writes) -> steps, or None without kernels for these
PrepareGated = Callable[[Sequence[Any], Sequence[Tensor], Any, tuple[Gate | None, Gate | None]], list[Step] | None]
# output element i needs input element i only, so that they may share their bytes
ELEMENTWISE = {"look_up", "add_int8", "mul_int8"}


def first(prepares: Sequence[Prepare]) -> Prepare:
    """What the first of them makes that has a kernel."""

    def prepared(inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
        return next((steps for p in prepares if (steps := p(inputs, outputs, options))), None)

    return prepared


def joined(*tables: Mapping[str, Prepare]) -> dict[str, Prepare]:
    """For each kind of operator, the first of these that has a kernel."""
    return {kind: first([t[kind] for t in tables if kind in t]) for kind in {k: None for t in tables for k in t}}


@dataclass(frozen=True)
class Family:
    """name: what its CPUs have in common. prepare: its own kernels by operator kind. gated: those that leave closed
    channels out."""

    name: str
    prepare: Mapping[str, Prepare] = field(default_factory=dict)
    gated: Mapping[str, PrepareGated] = field(default_factory=dict)

    def steps(self, kind: str, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step]:
        """Kernel calls for one operator. Raises UnsupportedOperatorError for one that no kernel knows."""
        if (own := self._own(kind, inputs, outputs, options)) is not None:
            return own
        if kind not in KERNELS:
            raise UnsupportedOperatorError(f"no kernel for {kind}")
        calls = KERNELS[kind](inputs, outputs, options)
        return [Step(c.kernel, c.arguments, _in_place(c.kernel.__name__, inputs, outputs[0])) for c in calls]

    def _own(self, kind: str, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
        """None where the family has no kernel; int16 has ordinary ones alone."""
        if kind not in self.prepare or has_int16(inputs, outputs):
            return None
        layer = layer_channels(kind, inputs, outputs, options)
        if layer is None:
            return self.prepare[kind](inputs, outputs, options)
        layer = simple_channels(layer)
        if (own := self.prepare[kind](layer.inputs, outputs, options)) is not None:
            return own
        if (apart := without_hard_channels(layer)) is None:
            return None
        others, step = apart
        own = self.prepare[kind](others.inputs, outputs, options)
        # the input is read again, so that nothing may be written over it
        return own and [*(replace(s, overlap={}) for s in own), step]

    def gated_steps(
        self,
        kind: str,
        inputs: Sequence[Any],
        outputs: Sequence[Tensor],
        options: Options,
        gates: tuple[Gate | None, Gate | None],
    ) -> list[Step] | None:
        """Kernel calls that leave out the channels that gates close, of what the operator reads and of what it writes;
        None where there are none for it."""
        if kind not in self.gated:
            return None
        layer = layer_channels(kind, inputs, outputs, options)
        inputs = inputs if layer is None else simple_channels(layer).inputs
        return self.gated[kind](inputs, outputs, options, gates)


def _in_place(kernel: str, inputs: Sequence[Tensor], y: Tensor) -> dict[Tensor, int]:
    if kernel not in ELEMENTWISE:
        return {}
    return {x: 0 for x in inputs if x.data is None and x.shape == y.shape and x.dtype == y.dtype}
