"""Which layers of a program have the ordinary kernels, many times slower than those of a family of CPUs, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.families.shared.layer_channels import channels_apart
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.kernels.registry import has_int16
from edgecompress_runtime.operators import RECORDS
from edgecompress_runtime.plan import Operator, Plan, Tensor

ORDINARY = "edgecompress_runtime.kernels."  # how the names of their modules start
SHOWN = 3


@dataclass(frozen=True)
class OrdinaryLayer:
    """kind: of the operator; name: of its output. share: of the program's multiply-accumulates, that ordinary kernels
    compute in this layer. reason: why it has no other kernel."""

    kind: str
    name: str
    share: float
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason} ({100 * self.share:.1f} %)"


def summary(layers: Sequence[OrdinaryLayer]) -> str:
    """One line: the share of all, and the largest ones."""
    largest = sorted(layers, key=lambda layer: -layer.share)[:SHOWN]
    more = [f"and {len(layers) - SHOWN} more"] if len(layers) > SHOWN else []
    share = 100 * sum(layer.share for layer in layers)
    listed = "; ".join([*map(str, largest), *more])
    return f"{share:.1f} % of the multiplications are in slow kernels: {listed}"


def ordinary_layers(plan: Plan, steps: Iterable[tuple[Operator, Step]], family: Family) -> tuple[OrdinaryLayer, ...]:
    """Of the layers that multiply matrices, in order. steps: all kernel calls, each with its operator."""
    counts, found = {o: _macs(plan, o) for o in plan.operators}, []
    total = sum(counts.values())
    for operator, step in steps:
        if not (count := counts[operator]):
            continue
        name = plan.tensors[operator.outputs[0]].name
        if step.kernel is channels_apart:
            part, channels = len(step.arguments[2][0]), plan.tensors[operator.outputs[0]].shape[-1]
            reason = f"{part} of {channels} channels have factors or sums that no fast kernel holds"
            found.append(OrdinaryLayer(operator.kind, name, count / total * part / channels, reason))
        elif step.kernel.__module__.startswith(ORDINARY):
            found.append(OrdinaryLayer(operator.kind, name, count / total, _reason(plan, operator, family)))
    return tuple(found)


def _macs(plan: Plan, operator: Operator) -> int:
    inputs = [None if i < 0 else plan.tensors[i] for i in operator.inputs]
    return RECORDS[operator.kind].macs(inputs, [plan.tensors[i] for i in operator.outputs], operator.options)


def _reason(plan: Plan, operator: Operator, family: Family) -> str:
    """What keeps a layer from the kernels of a family: the first of these that holds."""
    inputs: list[Any] = [None if i < 0 else plan.tensors[i] for i in operator.inputs]
    y: Tensor = plan.tensors[operator.outputs[0]]
    if has_int16(inputs, [y]):
        return "int16 activations"
    if not y.is_int8:
        return f"computes on {y.dtype}"
    if operator.kind not in family.prepare:
        return f"there is no fast {operator.kind} for {family.name}"
    x, w = inputs[:2]
    depthwise, images = operator.kind == "DEPTHWISE_CONV_2D", len(x.shape) == 4 and operator.kind != "FULLY_CONNECTED"
    dilations = getattr(operator.options, "dilations", (1, 1))
    reasons = {
        "weights are computed": w.data is None and operator.kind != "BATCH_MATMUL",
        "weights have a zero point": bool(w.zero_point.any()),
        f"{x.shape[0]} images at once": images and x.shape[0] != 1,
        "columns of the window are dilated": dilations[1] != 1,
        "several outputs a channel": depthwise and x.shape[3] != y.shape[3],
        "groups": images and not depthwise and w.shape[3] != x.shape[3],
        f"fewer outputs than a kernel computes together ({y.shape[-1]})": y.shape[-1] < 4,
    }
    return next((reason for reason, holds in reasons.items() if holds), "factors or sums that no fast kernel holds")
