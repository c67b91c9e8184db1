"""Computes everything that is known before the model runs: by onnxscript's optimizer, and what that leaves by ONNX
Runtime."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgecompress.ingest.passes.edit import static_shape

# A larger constant isn't worth computing from smaller ones, and a hostile shape could ask for terabytes.
LARGEST_ELEMENTS = 2**26
# ONNX Runtime's types that NumPy has too: of int4 and int2 it gives the bytes in which several lie
WHOLE_BYTES = {
    f"tensor({kind})"
    for kind in ("bool", "double", "float", "float16", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))
}
UNLIKE_EACH_TIME = ("Random", "Bernoulli", "Multinomial", "Dropout")  # how names of operators start


class FoldConstants(ir.passes.InPlacePass):
    """Shapes are inferred and constant expressions evaluated, node by node, in order.

    1. With static input shapes every Shape, Size and what is computed from them becomes a constant.
    2. The optimizer leaves Constant nodes behind; they become initializers.
    3. No size limit but LARGEST_ELEMENTS: a transposed or dequantized weight is a weight.
    4. Nodes of several outputs, and those that the reference evaluator of the package onnx can't compute, such as
       GatherElements of a table with one row, are computed by ONNX Runtime.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        from onnxscript.optimizer import fold_constants_ir

        result = fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=LARGEST_ELEMENTS,
            output_size_limit=LARGEST_ELEMENTS,
            should_fold=_affordable,
        )
        lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        left = [_replaced(node) for node in list(model.graph) if _is_known(node)]
        return ir.passes.PassResult(model, result.modified or lifted.modified or any(left))


def _affordable(node: ir.Node) -> bool:
    shapes = [static_shape(v) for v in node.outputs]
    known = [math.prod(s) for s in shapes if s is not None]
    if len(known) == len(shapes):
        return max(known, default=0) <= LARGEST_ELEMENTS
    return node.op_type not in {"ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "OneHot"}


def _is_known(node: ir.Node) -> bool:
    """Whether its inputs are constants and its outputs can be."""
    plain = node.domain == "" and not node.op_type.startswith(UNLIKE_EACH_TIME)
    graphs = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    inputs = [v for v in node.inputs if v is not None]
    known = bool(inputs) and all(v.is_initializer() and not v.is_graph_input() for v in inputs)
    return plain and known and not graphs and not any(v.is_graph_output() for v in node.outputs) and _affordable(node)


def _replaced(node: ir.Node) -> bool:
    """Whether ONNX Runtime can compute the node; initializers then take its place."""
    graph = node.graph
    assert graph is not None
    inputs = [None if v is None else ir.Value(name=v.name, const_value=v.const_value) for v in node.inputs]
    outputs = [ir.Value(name=v.name) for v in node.outputs]
    copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), outputs=outputs)
    given = list({v.name: v for v in inputs if v is not None}.values())
    alone = ir.Graph([], outputs, nodes=[copy], initializers=given, opset_imports=dict(graph.opset_imports))
    try:
        proto = ir.to_proto(ir.Model(alone, ir_version=10)).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        if not all(output.type in WHOLE_BYTES for output in session.get_outputs()):
            return False
        arrays = session.run(None, {})
    except Exception:  # its exceptions share no base class; such a node stays as it is
        return False
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return False
    for output, array in zip(node.outputs, arrays, strict=True):
        tensor = ir.tensor(array, name=output.name)
        value = ir.Value(
            name=output.name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype)
        )
        ir.convenience.replace_all_uses_with(output, value)
        output.name = None
        graph.register_initializer(value)
    graph.remove(node, safe=True)
    return True
