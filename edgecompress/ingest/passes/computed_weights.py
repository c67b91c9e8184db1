"""Convolutions whose weights or biases are computed: products of matrices, which any device has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument, integer, integers
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.lowering.parts import Parts, Rule, written_in_parts


class ComputedWeights(ir.passes.InPlacePass):
    """1. Conv with a computed weight becomes a MatMul of it and all windows of the input.
    2. Where its bias alone is computed, that is added behind it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = any(_rule_of(node) is not None for node in model.graph)
        if modified:
            written_in_parts(model, _rule_of)
        return ir.passes.PassResult(model, modified)


def _rule_of(node: ir.Node) -> Rule | None:
    if node.op_type != "Conv" or len(node.inputs) < 3 or static_shape(node.outputs[0]) is None:
        return None
    if constant(node.inputs[1]) is None:
        return _product
    return _add_bias if constant(node.inputs[2]) is None else None


def _product(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, weight, bias = (argument(node, i) for i in range(3))
    count, channels, *size = static_shape(x) or ()
    _, outputs, *out = static_shape(node.outputs[0]) or ()
    kernel, strides, dilations = (integers(node, name) for name in ("kernel_shape", "strides", "dilations"))
    groups, pads, rank = integer(node, "group", 1), integers(node, "pads"), len(size)
    if any(pads):
        x = op.Pad(x, [0, 0, *pads[:rank], 0, 0, *pads[rank:]], 0.0)
    axes = list(range(2, 2 + rank))
    windows = []
    for tap in itertools.product(*map(range, kernel)):
        starts = [i * d for i, d in zip(tap, dilations)]
        ends = [a + (o - 1) * s + 1 for a, o, s in zip(starts, out, strides)]
        windows.append(op.Reshape(op.Slice(x, starts, ends, axes, strides), [count, channels, 1, prod(out)]))
    columns = windows[0] if len(windows) == 1 else op.Concat(*windows, axis=2)
    depth = channels // groups * prod(kernel)
    columns = op.Reshape(columns, [count, groups, depth, prod(out)])
    matrix = op.Reshape(weight, [1, groups, outputs // groups, depth])
    y = op.Reshape(op.MatMul(matrix, columns), [count, outputs, *out])
    return [op.Add(y, op.Reshape(bias, [outputs, *[1] * rank]))]


def _add_bias(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, weight, bias = (argument(node, i) for i in range(3))
    outputs, rank = (static_shape(weight) or (0,))[0], len(static_shape(x) or ()) - 2
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    y = op.Conv(x, weight, np.zeros(outputs, np.float32), **attributes)
    return [op.Add(y, op.Reshape(bias, [outputs, *[1] * rank]))]
