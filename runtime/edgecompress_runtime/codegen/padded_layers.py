"""A PAD in front of convolutions becomes a part of them: kernels read zero points wherever an image has ended.

TFLite's SAME says nothing of PyTorch's padding at stride 2, as much in front as behind, so that a file has a PAD there.
A program need not have the padded copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgecompress_runtime.options import SAME, ConvolutionOptions, DepthwiseOptions
from edgecompress_runtime.plan import Operator, Plan

LAYERS = ConvolutionOptions, DepthwiseOptions


def with_pads_in_layers(plan: Plan) -> Plan:
    """The plan without the PADs whose results convolutions alone read, which have their padding in front instead."""
    readers: dict[int, list[Operator]] = defaultdict(list)
    for operator in plan.operators:
        for index in operator.inputs:
            readers[index].append(operator)
    instead: dict[Operator, Operator] = {}
    gone: set[Operator] = set()
    for pad in plan.operators:
        y = pad.outputs[0]
        front = _front(plan, pad)
        if front is None or y in plan.outputs or not all(_takes(plan, o, y, front) for o in readers[y]):
            continue
        gone.add(pad)
        for layer in readers[y]:
            assert isinstance(layer.options, LAYERS)
            options = replace(layer.options, padding=front)
            instead[layer] = replace(layer, inputs=(pad.inputs[0], *layer.inputs[1:]), options=options)
    return replace(plan, operators=tuple(instead.get(o, o) for o in plan.operators if o not in gone))


def _front(plan: Plan, pad: Operator) -> tuple[int, int] | None:
    """Rows and columns of zero points that a PAD of an int8 image puts in front of it."""
    if pad.kind != "PAD":
        return None
    x, amounts, y = (plan.tensors[i] for i in (*pad.inputs[:2], pad.outputs[0]))
    if not x.is_int8 or x.data is not None or len(x.shape) != 4 or amounts.data is None:
        return None
    if not np.array_equal(x.scale, y.scale) or not np.array_equal(x.zero_point, y.zero_point):
        return None
    sides: Sequence[Sequence[int]] = amounts.data.reshape(4, 2).tolist()
    return (sides[1][0], sides[2][0]) if sides[0] == sides[3] == [0, 0] else None


def _takes(plan: Plan, layer: Operator, y: int, front: tuple[int, int]) -> bool:
    """Whether it is a convolution that reads y as its image, and whose every window reaches into the image's rows and
    columns, or behind."""
    if not isinstance(layer.options, LAYERS) or layer.inputs.count(y) > 1:
        return False
    if layer.options.padding == SAME or isinstance(layer.options.padding, tuple):
        return False
    window, dilations = plan.tensors[layer.inputs[1]].shape[1:3], layer.options.dilations
    return layer.inputs[0] == y and all(f <= (k - 1) * d for f, k, d in zip(front, window, dilations))
