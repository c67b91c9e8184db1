"""Brings operators that bound their input to one form: Relu and Clip."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit, NodePass, input_or_none, only_user

Bounds = tuple[float, float]


class CanonicalClip(NodePass):
    """1. Min and Max with a scalar constant are a Clip with one bound.
    2. A Clip or Relu whose only reader is another becomes one with it.
    3. A Clip whose bounds are computed is a Max and a Min.
    4. Clip at 0 from below alone is Relu; an infinite bound is left out; without bounds it goes.
    """

    operators = frozenset({"Clip", "Max", "Min", "Relu"})

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        found = _bounds(node)
        if found is None:
            return node.op_type == "Clip" and node.outputs[0].dtype == ir.DataType.FLOAT and _written_out(node, edit)
        x, (low, high) = found
        before = x.producer()
        inner = _bounds(before) if before is not None and only_user(x) is node else None
        if inner is not None:
            x, (inner_low, inner_high) = inner
            low, high = max(min(inner_low, high), low), min(max(inner_high, low), high)
        elif node.op_type == "Relu" or (node.op_type == "Clip" and _is_canonical(node, low, high)):
            return False
        if low == -np.inf and high == np.inf:
            edit.substitute(node, x)
        elif low == 0.0 and high == np.inf:
            edit.replace(node, "Relu", [x])
        else:
            bounds = [
                edit.constant(f"{x.name}/{label}", np.float32(b)) if np.isfinite(b) else None
                for label, b in (("min", low), ("max", high))
            ]
            edit.replace(node, "Clip", [x, *bounds])
        if before is not None and inner is not None:
            edit.graph.remove(before, safe=True)
        return True


def _written_out(node: ir.Node, edit: Edit) -> bool:
    """min(max(x, low), high), as ONNX defines it also where low > high; not of bounds that are no scalars."""
    low, high = input_or_none(node, 1), input_or_none(node, 2)
    if any(v is not None and v.shape is not None and len(v.shape) > 0 for v in (low, high)):
        return False
    bounds = [(kind, v) for kind, v in (("Max", low), ("Min", high)) if v is not None]
    x = argument(node, 0)
    for kind, value in bounds[:-1]:
        x = edit.insert(node, kind, [x, value], shape=x.shape)
    kind, value = bounds[-1]
    edit.replace(node, kind, [x, value])
    return True


def _is_canonical(node: ir.Node, low: float, high: float) -> bool:
    present = [v is not None for v in (input_or_none(node, 1), input_or_none(node, 2))]
    return present == [np.isfinite(low), np.isfinite(high)] and (low, high) != (0.0, np.inf)


def _bounds(node: ir.Node) -> tuple[ir.Value, Bounds] | None:
    """(value, (low, high)) of a float node that only bounds its input, else None."""
    if node.domain != "" or not node.inputs or node.inputs[0] is None or node.outputs[0].dtype != ir.DataType.FLOAT:
        return None
    if node.op_type == "Relu":
        return node.inputs[0], (0.0, np.inf)
    if node.op_type == "Clip":
        limits = []
        for i, absent in ((1, -np.inf), (2, np.inf)):
            if input_or_none(node, i) is None:
                limits.append(absent)
                continue
            array = constant(input_or_none(node, i))
            if array is None or array.size != 1:
                return None
            limits.append(float(array.reshape(())))
        low, high = limits
        return node.inputs[0], (min(low, high), high)
    if node.op_type in ("Max", "Min") and len(node.inputs) == 2:
        for i in (0, 1):
            array, x = constant(node.inputs[i]), argument(node, 1 - i)
            if array is not None and array.size == 1 and x.shape is not None and array.ndim <= len(x.shape):
                bound = float(array.reshape(()))
                return x, ((bound, np.inf) if node.op_type == "Max" else (-np.inf, bound))
    return None
