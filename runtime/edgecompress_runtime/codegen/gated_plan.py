"""Convolutions whose output channels a gate closes: a MUL by a tensor of zeros and ones that is known before them.

A plan says this with TFLite's operators alone: MEAN, FULLY_CONNECTED, a TABLE of two values, a GATHER that repeats each
for a block of channels, and the MUL. Here the MUL becomes part of the convolution in front of it, which leaves the
closed channels out; so does a convolution in front of a gated depthwise one, and one that reads a gated value leaves
its closed channels out of its sums. What a program computes stays the same, bit for bit: closed channels hold the zero
point, and `execute` runs the plan as it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgecompress_runtime.families.shared.family import Family
from edgecompress_runtime.families.shared.gate import Gate
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.options import ActivationOptions, GatherOptions
from edgecompress_runtime.plan import Operator, Plan, Tensor

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
KEEPS_ZEROS = ("MAX_POOL_2D", "AVERAGE_POOL_2D")  # whose results have the scale of what they read
NEAR = 1e-4  # of 1: 255 times as much, and what a multiplier is rounded by, are far from a half


@dataclass(frozen=True, eq=False)
class Gated:
    """plan: without the MULs that became part of a convolution, and what only they read. steps: of the operators of
    this plan that have kernels for their gates."""

    plan: Plan
    steps: Mapping[Operator, list[Step]]


@dataclass(eq=False)
class Gates:
    """held: of values, by their place in the plan. written: of convolutions, whose closed channels nobody needs.
    products: by the convolution in front of it, the MUL that closes its channels."""

    held: dict[int, Gate] = field(default_factory=dict)
    written: dict[Operator, Gate] = field(default_factory=dict)
    products: dict[Operator, Operator] = field(default_factory=dict)

    def read(self, operator: Operator) -> Gate | None:
        """The gate of what a CONV_2D reads."""
        return self.held.get(operator.inputs[0]) if operator.kind == "CONV_2D" else None


def gates_of(plan: Plan) -> Gates:
    """All gates, whether a family has kernels for them or not."""
    found, makers = Gates(), {i: o for o in plan.operators for i in o.outputs}
    places = {o: n for n, o in enumerate(plan.operators)}
    reads = Counter([*(i for o in plan.operators for i in o.inputs), *plan.outputs])
    for operator in plan.operators:
        if operator.kind in KEEPS_ZEROS and operator.inputs[0] in found.held:
            found.held[operator.outputs[0]] = found.held[operator.inputs[0]]
        for x, factor in _pairs(plan, operator):
            index, block = _unrepeated(plan, makers, factor)
            gate = _gate(plan, makers.get(index), index, block)
            if gate is None or not _chooses(plan, operator, x):
                continue
            found.held[operator.outputs[0]] = gate
            layer = makers.get(x)
            while layer is not None and layer.kind in CONVOLUTIONS and reads[layer.outputs[0]] == 1:
                if places[makers[index]] > places[layer]:
                    break  # it runs before its gate is known
                found.written[layer] = gate
                if layer.outputs[0] == x:
                    found.products[layer] = operator
                layer = makers.get(layer.inputs[0]) if _one_to_one(plan, layer) else None
    return found


def gated(plan: Plan, family: Family) -> Gated:
    """The plan as a family's kernels run it."""
    found = gates_of(plan)
    instead: dict[Operator, Operator] = {}
    steps: dict[Operator, list[Step]] = {}
    wanted = set(plan.outputs)
    for operator in plan.operators:
        gates = found.read(operator), found.written.get(operator)
        if any(gates):
            own = replace(operator, outputs=found.products.get(operator, operator).outputs)
            inputs = [None if i < 0 else plan.tensors[i] for i in own.inputs]
            outputs = [plan.tensors[i] for i in own.outputs]
            if (made := family.gated_steps(own.kind, inputs, outputs, own.options, gates)) is not None:
                instead[operator], steps[own] = own, made
                tensors = {gate.tensor for gate in gates if gate is not None}
                wanted |= {i for i, tensor in enumerate(plan.tensors) if tensor in tensors}
    gone = {product for layer, product in found.products.items() if layer in instead}
    kept: list[Operator] = []
    for operator in reversed([instead.get(o, o) for o in plan.operators if o not in gone]):
        if wanted & set(operator.outputs) or not steps:
            wanted |= set(operator.inputs)
            kept.append(operator)
    return Gated(replace(plan, operators=tuple(reversed(kept))), steps)


def _pairs(plan: Plan, operator: Operator) -> Iterator[tuple[int, int]]:
    """(x, factor) of a product of an image x by channels."""
    for x, factor in (operator.inputs, operator.inputs[::-1]) if operator.kind == "MUL" else ():
        image, channels, y = plan.tensors[x], plan.tensors[factor], plan.tensors[operator.outputs[0]]
        is_image = image.data is None and len(image.shape) == 4 and image.shape[0] == 1 and image.shape == y.shape
        if is_image and channels.shape[-1:] == image.shape[-1:] == (channels.size,):
            yield x, factor


def _unrepeated(plan: Plan, makers: Mapping[int, Operator], factor: int) -> tuple[int, int]:
    """The tensor whose elements a factor's are, each for a block of so many channels."""
    index, block = factor, 1
    while (maker := makers.get(index)) is not None:
        x = plan.tensors[maker.inputs[0]]
        if maker.kind == "GATHER" and isinstance(maker.options, GatherOptions) and block == 1:
            chosen, size = plan.tensors[maker.inputs[1]].data, plan.tensors[index].size
            if chosen is None or not x.size or size % x.size or x.shape[maker.options.axis] != x.size:
                break
            if not np.array_equal(chosen.reshape(-1), np.repeat(np.arange(x.size), size // x.size)):
                break
            block = size // x.size
        elif maker.kind != "RESHAPE":
            break
        index = maker.inputs[0]
    return index, block


def _gate(plan: Plan, maker: Operator | None, index: int, block: int) -> Gate | None:
    """Of a TABLE of two values, one of them its zero point, the other 1."""
    if maker is None or maker.kind != "TABLE":
        return None
    entries, tensor = plan.tensors[maker.inputs[1]].data, plan.tensors[index]
    if entries is None or not set(np.unique(entries)) <= {tensor.zero, _one(tensor)}:
        return None
    return Gate(tensor, block, tensor.zero)


def _one(tensor: Tensor) -> int | None:
    """What stands for 1; None where nothing does, to within NEAR."""
    ones = tensor.zero + round(1 / float(tensor.scale[0]))
    return ones if ones <= 127 and abs((ones - tensor.zero) * float(tensor.scale[0]) - 1) < NEAR else None


def _chooses(plan: Plan, product: Operator, x: int) -> bool:
    """Whether a MUL gives what it reads where the gate is open: the same grid, and no activation that cuts it off."""
    a, y = plan.tensors[x], plan.tensors[product.outputs[0]]
    assert isinstance(product.options, ActivationOptions)
    same = np.array_equal(a.scale, y.scale) and np.array_equal(a.zero_point, y.zero_point)
    return a.is_int8 and y.is_int8 and same and product.options.fused_activation_function == 0


def _one_to_one(plan: Plan, layer: Operator) -> bool:
    """Whether each channel that it makes comes of the same one that it reads."""
    ends = plan.tensors[layer.inputs[0]], plan.tensors[layer.outputs[0]]
    return layer.kind == "DEPTHWISE_CONV_2D" and ends[0].shape[-1] == ends[1].shape[-1]
