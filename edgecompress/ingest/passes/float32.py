"""Turns float16, bfloat16 and float64 models into float32 models."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

CAST = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


class CastToFloat32(ir.passes.InPlacePass):
    """1. Constants, graph inputs and outputs of another float type become float32.
    2. So do the type attributes (`to` of Cast, `dtype` of others) and tensor attributes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for graph in model.graphs():
            for value in (*graph.inputs, *graph.initializers.values(), *graph.outputs):
                modified |= _cast(value)
            for node in graph:
                for value in node.outputs:
                    modified |= _cast(value)
                modified |= _cast_attributes(node)
        return ir.passes.PassResult(model, modified)


def holds(model: ir.Model, dtypes: frozenset[ir.DataType]) -> bool:
    """Whether an input, an output or a constant of the model has one of the types, or a value is cast to one."""
    values = (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values())
    if any(n.op_type == "Cast" and n.attributes.get_int("to") in dtypes for n in model.graph):
        return True
    constants = (n.attributes.get_tensor("value") for n in model.graph if n.op_type == "Constant")
    return any(v.dtype in dtypes for v in values) or any(t is not None and t.dtype in dtypes for t in constants)


def _cast(value: ir.Value) -> bool:
    if value.const_value is not None and value.const_value.dtype in CAST:
        value.const_value = _float32(value.const_value)
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return True
    if value.dtype in CAST:
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return True
    return False


def _float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    with np.errstate(over="ignore"):  # float64 beyond float32: found as infinite by CheckWeights
        return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _cast_attributes(node: ir.Node) -> bool:
    modified = False
    for name, attribute in list(node.attributes.items()):
        if name in ("to", "dtype") and attribute.type == ir.AttributeType.INT and attribute.value in CAST:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
            modified = True
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in CAST:
            node.attributes[name] = ir.AttrTensor(name, _float32(attribute.value))
            modified = True
    return modified
