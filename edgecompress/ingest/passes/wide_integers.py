"""Integers of 8 and 16 bits become int32, uint32 becomes int64: with the same values, and kernels everywhere."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit
from edgecompress.ingest.passes.infer_shapes import InferShapes

WIDE = {
    ir.DataType.INT8: ir.DataType.INT32,
    ir.DataType.INT16: ir.DataType.INT32,
    ir.DataType.UINT8: ir.DataType.INT32,
    ir.DataType.UINT16: ir.DataType.INT32,
    ir.DataType.UINT32: ir.DataType.INT64,
}
OVERFLOWS = frozenset({"Add", "Cast", "Mul", "Sub"})  # keep the lowest bits of a result that is too large
OPERATORS = OVERFLOWS | {
    "Abs", "Clip", "Concat", "Div", "Equal", "Expand", "Flatten", "Gather", "Greater", "GreaterOrEqual", "Identity",
    "Less", "LessOrEqual", "Max", "Min", "Mod", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze", "Where",
}  # fmt: skip


class WideIntegers(ir.passes.InPlacePass):
    """Inputs, constants, values and outputs of WIDE change their type, if nothing but OPERATORS works on them.

    A result that may be too large for the narrow type is brought into its range, as the narrow type would do by itself.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        there = (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs))
        casts = (node.attributes.get_int("to") for node in graph if node.op_type == "Cast")
        if not any(v.dtype in WIDE for v in there) and not any(to in WIDE for to in casts):
            return ir.passes.PassResult(model, False)
        InferShapes()(model)
        values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
        narrow = {value: dtype for value in values if (dtype := value.dtype) is not None and dtype in WIDE}
        nodes = [n for n in graph if any(v in narrow for v in (*n.inputs, *n.outputs))]
        if any(node.op_type not in OPERATORS or node.domain != "" for node in nodes):
            return ir.passes.PassResult(model, False)
        for value, own in narrow.items():
            _widen(value, WIDE[own])
        edit = Edit(graph)
        for node in nodes:
            dtype = narrow.get(node.outputs[0])
            if dtype is not None and node.op_type in OVERFLOWS:
                _keep_lowest_bits(node, edit, dtype)
        return ir.passes.PassResult(model, bool(narrow))


def _widen(value: ir.Value, dtype: ir.DataType) -> None:
    array = constant(value)
    if array is not None:
        value.const_value = ir.tensor(array.astype(dtype.numpy()), name=value.name)
    value.type = ir.TensorType(dtype)


def _keep_lowest_bits(node: ir.Node, edit: Edit, dtype: ir.DataType) -> None:
    """(y + h) mod 2^bits - h of the node's result, where h = 2^(bits - 1) for signed types, else 0."""
    x, attributes = argument(node, 0), {k: a.value for k, a in node.attributes.items()}
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", int(WIDE[dtype]))
        if x.dtype in (ir.DataType.FLOAT, ir.DataType.BOOL):  # which fit, or what they become is not defined
            return
        attributes["to"] = int(WIDE[dtype])
    range_, wide = np.iinfo(dtype.numpy()), WIDE[dtype].numpy().type
    size, half = (
        edit.constant(name, wide(number)) for name, number in (("size", 2**range_.bits), ("half", -range_.min))
    )
    result = edit.insert(node, node.op_type, node.inputs, attributes)
    if range_.min == 0:
        edit.replace(node, "Mod", [result, size])
        return
    rest = edit.insert(node, "Mod", [edit.insert(node, "Add", [result, half]), size])
    edit.replace(node, "Sub", [rest, half])
