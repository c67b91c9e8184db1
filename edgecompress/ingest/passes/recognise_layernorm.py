"""Recognises LayerNormalization, which exporters below opset 17 write out in smaller operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit, NodePass, only_user, static_shape


class RecogniseLayerNormalization(NodePass):
    """d / sqrt(mean(d * d) + epsilon) with d = x - mean(x), over the last axes, then * scale and + shift
    -> LayerNormalization(x, scale, shift). Found from its Sqrt. Scale and shift are constants of the
    normalised shape, ones and zeros where absent. (onnxscript has a rule for the last axis with a scale
    only.)
    """

    operators = frozenset({"Sqrt"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        plus = _producer(node.inputs[0], "Add")
        if plus is None:
            return False
        variance, epsilon = _with_constant(plus)
        centred, axes = _mean_of_square(variance)
        if centred is None or epsilon is None or epsilon.size != 1:
            return False
        difference = _producer(centred, "Sub")
        if difference is None:
            return False
        x = argument(difference, 0)
        shape = static_shape(x)
        mean = _producer(difference.inputs[1], "ReduceMean")
        if mean is None or mean.inputs[0] is not x or _axes(mean) != axes or shape is None:
            return False
        rank = len(shape)
        if axes != list(range(rank - len(axes), rank)):
            return False
        last = _normalised(node, centred)
        if last is None:
            return False
        normalised_shape = shape[rank - len(axes) :]
        scale, last = _follow(last, "Mul", normalised_shape, 1.0)
        shift, last = _follow(last, "Add", normalised_shape, 0.0)
        stem = last.outputs[0].name
        inputs = [x, edit.constant(f"{stem}/scale", scale), edit.constant(f"{stem}/bias", shift)]
        attributes = {"axis": rank - len(axes), "epsilon": float(epsilon.reshape(())), "stash_type": 1}
        edit.replace(last, "LayerNormalization", inputs, attributes)
        return True


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def _with_constant(node: ir.Node) -> tuple[ir.Value | None, np.ndarray | None]:
    """(computed input, constant input) of a node with two."""
    for i in (0, 1):
        if (array := constant(node.inputs[i])) is not None:
            return node.inputs[1 - i], array
    return None, None


def _axes(reduce: ir.Node) -> list[int]:
    """Its axes, from the first; empty when it doesn't keep them as dimensions of size 1."""
    axes = constant(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
    shape = argument(reduce, 0).shape
    if axes is None or not reduce.attributes.get_int("keepdims", 1) or shape is None:
        return []
    return sorted(int(a) % len(shape) for a in axes)


def _mean_of_square(value: ir.Value | None) -> tuple[ir.Value | None, list[int]]:
    mean = _producer(value, "ReduceMean")
    if mean is None or not _axes(mean):
        return None, []
    square = argument(mean, 0).producer()
    if square is None or square.domain != "":
        return None, []
    if square.op_type == "Mul" and square.inputs[0] is square.inputs[1]:
        return square.inputs[0], _axes(mean)
    exponent = constant(square.inputs[1]) if square.op_type == "Pow" else None
    if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2.0:
        return square.inputs[0], _axes(mean)
    return None, []


def _normalised(root: ir.Node, centred: ir.Value) -> ir.Node | None:
    """centred / root, or centred * (1 / root)."""
    user = only_user(root.outputs[0])
    if user is None:
        return None
    if user.op_type == "Div" and user.inputs[0] is centred:
        return user
    one = constant(user.inputs[0]) if user.op_type == "Div" else None
    if user.op_type == "Reciprocal" or (one is not None and one.size == 1 and float(one.reshape(())) == 1.0):
        product = only_user(user.outputs[0])
        if product is not None and product.op_type == "Mul" and centred in product.inputs:
            return product
    return None


def _follow(node: ir.Node, op_type: str, shape: tuple[int, ...], default: float) -> tuple[np.ndarray, ir.Node]:
    """(constant of a following Mul or Add, that node), or (defaults, node) when none of the shape follows."""
    user = only_user(node.outputs[0])
    if user is not None and user.op_type == op_type and user.domain == "":
        _, array = _with_constant(user)
        if array is None or array.dtype != np.float32 or array.size <= 1:
            return np.full(shape, default, np.float32), node
        if array.shape[array.ndim - len(shape) :] == shape and array.size == np.prod(shape):
            return array.reshape(shape), user
    return np.full(shape, default, np.float32), node
