"""Infers the shape and dtype of every value by the operators' own rules in the onnx package."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.ingest.passes.canonical_pooling import pool_of
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.support.interrupt import reraise_interrupt

# Inputs up to this many elements are given by value: they are shapes, axes, pads and the like.
LARGEST_PARAMETER = 256


class InferShapes(ir.passes.InPlacePass):
    """Forgets what the file says about intermediate values and infers it again, node by node.

    Raises InputError that names the first node whose inputs don't fit together.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for node in model.graph:
            infer_node(node, model.opset_imports)
        return ir.passes.PassResult(model, True)


def infer_node(node: ir.Node, opsets: Mapping[str, int]) -> None:
    """Infers the shapes and dtypes of a node's outputs from its inputs, in place, where its operator is in the onnx
    package. Raises InputError where the inputs don't fit together. opsets: of the model, by domain."""
    if node.domain not in opsets:
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
    except onnx.defs.SchemaError:
        return
    if node.op_type == "Split" and node.attributes.get_int("num_outputs", len(node.outputs)) != len(node.outputs):
        raise InputError(  # onnx's inference ends the process
            f"node {node.name or node.outputs[0].name!r} (Split) has {len(node.outputs)} outputs, but "
            f"num_outputs = {node.attributes.get_int('num_outputs')}"
        )
    inputs = {str(v.name): v for v in node.inputs if v is not None}
    types = {name: proto for name, v in inputs.items() if (proto := _type_proto(v)) is not None}
    if len(types) < len(inputs):
        return
    parameters = {
        name: ir.serde.serialize_tensor(v.const_value)
        for name, v in inputs.items()
        if v.const_value is not None and v.const_value.size <= LARGEST_PARAMETER
    }
    ids = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema, ir.serde.serialize_node(node), types, parameters, opset_imports=ids
        )
    except Exception as error:  # the C++ side raises InferenceError, TypeError and RuntimeError alike
        reraise_interrupt(error)
        shapes = ", ".join(f"{n!r} {'?' if v.shape is None else v.shape}" for n, v in inputs.items())
        raise InputError(
            f"node {node.name or node.outputs[0].name!r} ({node.op_type}) doesn't fit its inputs "
            f"({shapes}): {_first_line(error)}"
        ) from error
    for output in node.outputs:
        if output.name in found:
            output.shape = ir.serde.deserialize_type_proto_for_shape(found[output.name])
            output.type = ir.serde.deserialize_type_proto_for_type(found[output.name])
    _drop_windows_in_padding(node)


def _drop_windows_in_padding(node: ir.Node) -> None:
    """With ceil_mode, the onnx package counts windows that begin in the padding at the end, which don't exist."""
    size = static_shape(node.inputs[0]) if node.op_type in ("AveragePool", "MaxPool") else None
    if size is not None and node.attributes.get_int("ceil_mode", 0) == 1:
        for output in node.outputs:
            output.shape = ir.Shape([*size[:2], *pool_of(node, size[2:]).out])


def _type_proto(value: ir.Value) -> onnx.TypeProto | None:
    if value.type is None:
        return None
    proto = ir.serde.serialize_type(value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
