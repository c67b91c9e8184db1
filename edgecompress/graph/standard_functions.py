"""Operators that the ONNX standard defines by others, replaced by their definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgecompress.graph.provenance import follow

DOMAIN = "edgecompress.composite"


def write_functions(model: ir.Model, wanted: Callable[[ir.Node], bool]) -> bool:
    """Each wanted node of the default domain that has a function body in its schema becomes that body, in place.
    Returns whether there were any.
    """
    opset = model.opset_imports[""]
    metas = {v.name: dict(v.meta) for node in model.graph if node.domain == "" and wanted(node) for v in node.outputs}
    called = [_call_definition(node, model, opset) for node in list(model.graph) if node.domain == "" and wanted(node)]
    if not any(called):
        return False
    model.opset_imports[DOMAIN] = 1
    common.InlinePass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    model.opset_imports.pop(DOMAIN, None)
    for node in model.graph:
        for value in node.outputs:
            value.meta.update(metas.get(value.name, {}))
    return True


def fold_casts(model: ir.Model) -> None:
    """Computes, in place, what bodies make of constants: they cast each to the type of the input (CastLike)."""
    from onnxscript.optimizer import fold_constants_ir

    fold_constants_ir(model, onnx_shape_inference=True)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def has_function(node: ir.Node) -> bool:
    """Whether the standard has a body for the node's operator."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _call_definition(node: ir.Node, model: ir.Model, opset: int) -> bool:
    """Makes the node a call of a model-local function with its definition, if it has one."""
    definition = _definition(node, opset)
    if definition is None:
        return False
    definition.domain, definition.name = DOMAIN, f"{node.op_type}_{len(model.functions)}"
    for import_ in definition.opset_import:
        if import_.domain == "":
            import_.version = opset
    _add_defaults(node, opset)
    _settle_outputs(definition, len(node.outputs))
    function = ir.serde.deserialize_function(definition)
    for part in function:
        follow(part, node)
    model.functions[function.identifier()] = function
    node.domain, node.op_type, node.version = DOMAIN, definition.name, None
    return True


def _settle_outputs(definition: onnx.FunctionProto, count: int) -> None:
    """The body leaves out optional outputs that the node doesn't name: those at the end go, and any other becomes
    whatever the first input is, which nobody reads.
    """
    del definition.output[count:]
    computed = {name for part in definition.node for name in part.output}
    for name in definition.output:
        if name not in computed:
            definition.node.add(op_type="Identity", input=definition.input[:1], output=[name])


def _add_defaults(node: ir.Node, opset: int) -> None:
    """Attributes left out by the node: the body refers to them by name."""
    for name, attribute in onnx.defs.get_schema(node.op_type, opset, "").attributes.items():
        if name not in node.attributes and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            node.attributes.add(ir.serde.deserialize_attribute(attribute.default_value))


def _definition(node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, "")  # onnx's types leave the bodies out
    except onnx.defs.SchemaError:
        return None
    versions = [v for v in schema.function_opset_versions if v <= opset]
    if versions:
        return onnx.FunctionProto.FromString(schema.get_function_with_opset_version(max(versions)))
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    types = []
    for value in node.inputs:
        if value is None:
            types.append(onnx.TypeProto())
            continue
        if value.type is None or value.shape is None:
            return None
        proto = ir.serde.serialize_type(value.type)
        ir.serde.serialize_shape_into(proto, value.shape)
        types.append(proto)
    if not versions:
        return None
    body = schema.get_context_dependent_function_with_opset_version(
        max(versions), ir.serde.serialize_node(node).SerializeToString(), [t.SerializeToString() for t in types]
    )
    return onnx.FunctionProto.FromString(body) if body else None
