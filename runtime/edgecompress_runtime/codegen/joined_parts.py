"""Parts of a CONCATENATION of float32 that are dequantized for it alone: each is written straight into its place.

A detector's boxes and scores have scales of their own, and meet in float: without this, each number would be written
twice, and read once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.kernels.movement import copy
from edgecompress_runtime.kernels.quantize import strided_dequantize
from edgecompress_runtime.kernels.strides import Ints, collapsed, contiguous
from edgecompress_runtime.options import ConcatenationOptions
from edgecompress_runtime.plan import Operator, Plan, Tensor


@dataclass(frozen=True, eq=False)
class Place:
    """Where a tensor lies in another: strides and start in elements of that."""

    tensor: Tensor
    strides: Ints
    start: int


def places(plan: Plan) -> dict[Tensor, Place]:
    """What DEQUANTIZE, or another CONCATENATION, makes for one CONCATENATION alone -> its place in the result."""
    reads = Counter([*(i for o in plan.operators for i in o.inputs), *plan.outputs])
    makers = {o.outputs[0]: o for o in plan.operators}
    found: dict[Tensor, Place] = {}
    for operator in reversed(plan.operators):
        y = plan.tensors[operator.outputs[0]]
        if operator.kind != "CONCATENATION" or y.dtype != np.float32:
            continue
        for index, place in zip(operator.inputs, _parts(plan, operator, found)):
            if reads[index] == 1 and index in makers and _can_write(plan, makers[index]):
                found[plan.tensors[index]] = place
    return found


def steps_in_place(plan: Plan, operator: Operator, found: Mapping[Tensor, Place]) -> list[Step] | None:
    """The kernel calls of an operator that writes into places, or whose operands are there already; None for others.

    found: of `places`."""
    y = plan.tensors[operator.outputs[0]]
    if operator.kind == "DEQUANTIZE" and y in found:
        x, place = plan.tensors[operator.inputs[0]], found[y]
        geometry = collapsed(x.shape, contiguous(x.shape), place.strides)
        return [Step(strided_dequantize, (x, place.tensor, geometry, place.start, float(x.scale[0]), x.zero))]
    inputs = [plan.tensors[i] for i in operator.inputs if i >= 0]
    if operator.kind != "CONCATENATION" or not (y in found or any(x in found for x in inputs)):
        return None
    calls = [
        copy(x, place.tensor, x.shape, contiguous(x.shape), place.strides, 0, place.start)
        for x, place in zip(inputs, _parts(plan, operator, found))
        if x not in found
    ]
    return [Step(call.kernel, call.arguments) for call in calls]


def _parts(plan: Plan, operator: Operator, found: Mapping[Tensor, Place]) -> list[Place]:
    """Where the operands of a CONCATENATION go."""
    y = plan.tensors[operator.outputs[0]]
    whole = found.get(y, Place(y, contiguous(y.shape), 0))
    assert isinstance(operator.options, ConcatenationOptions)
    axis = operator.options.axis % len(y.shape)
    ends = np.cumsum([plan.tensors[i].shape[axis] for i in operator.inputs])
    starts = [whole.start + int(end) * whole.strides[axis] for end in (0, *ends[:-1])]
    return [Place(whole.tensor, whole.strides, start) for start in starts]


def _can_write(plan: Plan, maker: Operator) -> bool:
    if maker.kind == "DEQUANTIZE":
        x = plan.tensors[maker.inputs[0]]
        return x.is_int8 and x.data is None
    return maker.kind == "CONCATENATION"
