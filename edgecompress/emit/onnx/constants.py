"""Weights and other constants: stored as integers or halves, widened by one or two nodes."""
from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgecompress.emit.onnx.additions import Additions, unsigned
from edgecompress.graph.annotations import Codebook, Quantization, codebook, is_int8, quantization
from edgecompress.graph.fusion import Layer, constant

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}  # inputs 1 and 2 are weight and bias, if constant
NARROW = 16  # values that the narrowest index type of ONNX before opset 25, UINT4, can tell apart


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
        book = None if meets_activations else codebook(value)
        graph.initializers.pop(str(value.name))
        if book is not None and len(book.centroids) <= NARROW and book.centroids.dtype == np.int8:
            chain = _look_up(str(value.name), book, added, graph)
            stored = chain[-1].outputs[0]
        else:
            array = unsigned(q.quantize(real)) if meets_activations else q.quantize(real)
            chain, stored = [], ir.Value(name=value.name, const_value=ir.tensor(array, name=value.name))
            graph.register_initializer(stored)
        if any(node in int8_nodes for node, _ in uses):
            chain.append(added.linear("DequantizeLinear", stored, q, as_unsigned=meets_activations))
        else:
            chain += _fold_when_loaded(stored, q, real.ndim, added)
        graph.insert_before(graph[0], chain)
        for node, index in uses:
            node.replace_input_with(index, chain[-1].outputs[0])


def _look_up(name: str, book: Codebook, added: Additions, graph: ir.Graph) -> list[ir.Node]:
    """Gather(centroids, Cast(indices of 4 bits)): ONNX Runtime folds both when it loads the model."""
    tensor = ir.tensor(book.indices.astype(ml_dtypes.uint4), dtype=ir.DataType.UINT4, name=name)
    indices = ir.Value(name=name, const_value=tensor)
    graph.register_initializer(indices)
    cast = added.node("Cast", [indices], to=int(ir.DataType.INT32))
    return [cast, added.node("Gather", [added.constant(book.centroids), cast.outputs[0]])]


def _fold_when_loaded(stored: ir.Value, q: Quantization, rank: int, added: Additions) -> list[ir.Node]:
    cast = added.node("Cast", [stored], to=int(ir.DataType.FLOAT))
    if q.dtype == ir.DataType.FLOAT16:
        return [cast]
    shape = () if q.axis is None else tuple(-1 if axis == q.axis else 1 for axis in range(rank))
    scale = added.constant(q.scale.astype(np.float32).reshape(shape))
    return [cast, added.node("Mul", [cast.outputs[0], scale])]
