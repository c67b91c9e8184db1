"""Weights and other constants: stored as integers or halves, widened by one or two nodes."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.emit.onnx.additions import Additions, unsigned
from edgecompress.graph.annotations import Quantization, is_int8, quantization
from edgecompress.graph.fusion import Layer, constant

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}  # inputs 1 and 2 are weight and bias, if constant


def store_constants(graph: ir.Graph, groups: Sequence[Layer], added: Additions) -> None:
    """Replaces each initializer that has a Quantization by what that stores, and widens it for its users.
    groups: the layers of the graph.

    Where an int8 node reads it: DequantizeLinear, which ONNX Runtime leaves for its integer kernels to
    find, and would run on every inference in a float layer (three Gemm 640x640: 257 us for 186). Elsewhere:
    Cast, and for integers Mul, which it folds once, when it loads the model.
    """
    int8_nodes = {node for layer in groups if is_int8(layer.node) for node in layer.nodes}
    for value in list(graph.initializers.values()):
        q, real = quantization(value), constant(value)
        if q is None or real is None:
            continue
        uses = [(use.node, use.idx) for use in value.uses()]
        # What meets activations is uint8 as they are: the integer kernels take one type for both.
        meets_activations = any(node.op_type not in WEIGHTED or index == 0 for node, index in uses)
        array = unsigned(q.quantize(real)) if meets_activations else q.quantize(real)
        stored = ir.Value(name=value.name, const_value=ir.tensor(array, name=value.name))
        graph.initializers.pop(str(value.name))
        graph.register_initializer(stored)
        if any(node in int8_nodes for node, _ in uses):
            chain = [added.linear("DequantizeLinear", stored, q, as_unsigned=meets_activations)]
        else:
            chain = _fold_when_loaded(stored, q, real.ndim, added)
        graph.insert_before(graph[0], chain)
        for node, index in uses:
            node.replace_input_with(index, chain[-1].outputs[0])


def _fold_when_loaded(stored: ir.Value, q: Quantization, rank: int, added: Additions) -> list[ir.Node]:
    cast = added.node("Cast", [stored], to=int(ir.DataType.FLOAT))
    if q.dtype == ir.DataType.FLOAT16:
        return [cast]
    shape = () if q.axis is None else tuple(-1 if axis == q.axis else 1 for axis in range(rank))
    scale = added.constant(q.scale.astype(np.float32).reshape(shape))
    return [cast, added.node("Mul", [cast.outputs[0], scale])]
