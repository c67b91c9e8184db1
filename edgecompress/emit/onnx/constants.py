"""Weights and other constants: stored as integers or halves, widened by one or two nodes."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgecompress.emit.onnx.additions import Additions, unsigned
from edgecompress.graph.annotations import Codebook, Quantization, activation_bits, codebook, quantization
from edgecompress.graph.fusion import Layer, constant
from edgecompress.operators import OPERATORS

# inputs 1 and 2 are weight and bias, if constant
WEIGHTED = {name for name, record in OPERATORS.items() if record.integer is not None and record.integer.weight == 1}
WEIGHTS = dict.fromkeys(WEIGHTED, (1, 2)) | {
    name: record.weights.stored for name, record in OPERATORS.items() if record.weights.stored
}
NARROW = 16  # values that the narrowest index type of ONNX before opset 25, UINT4, can tell apart
LOOK_UP_BYTES = 60  # of a file, for the nodes of a look-up


def store_constants(graph: ir.Graph, groups: Sequence[Layer], added: Additions) -> None:
    """Replaces each initializer that has a Quantization or a Codebook by what that stores, and widens it for its users.
    groups: the layers of the graph.

    Where an int8 node reads it: DequantizeLinear, which ONNX Runtime leaves for its integer kernels to
    find, and would run on every inference in a float layer (three Gemm 640x640: 257 us for 186). Elsewhere:
    Cast, and for integers Mul, which it folds once, when it loads the model.
    """
    int8_nodes = {node for layer in groups if activation_bits(layer.node) == 8 for node in layer.nodes}
    for value in list(graph.initializers.values()):
        q, real = quantization(value), constant(value)
        if q is not None and q.dtype == ir.DataType.INT64:
            continue  # a bias beside int16 activations; DequantizeLinear takes no int64
        uses = [(use.node, use.idx) for use in value.uses()]
        # What meets activations is uint8 as they are: the integer kernels take one type for both.
        meets_activations = any(
            index not in WEIGHTS.get(node.op_type, ()) or (node in int8_nodes and node.op_type not in WEIGHTED)
            for node, index in uses
        )
        table = None if meets_activations else look_up_table(value)
        if real is None or (q is None and table is None):
            continue
        graph.initializers.pop(str(value.name))
        if table is not None:
            chain = _look_up(value, table, added, graph)
            stored = chain[-1].outputs[0]
        else:
            assert q is not None
            array = unsigned(q.quantize(real)) if meets_activations else q.quantize(real)
            chain, stored = [], ir.Value(name=value.name, const_value=ir.tensor(array, name=value.name))
            graph.register_initializer(stored)
        if q is not None and q.axis == 0 and table is None and _is_looked_up(uses):
            _scale_rows(stored, q, uses, added, graph)
            continue
        if q is None:
            chain += _scaled(stored, codebook(value), real.ndim, added)
        elif any(node in int8_nodes for node, _ in uses):
            chain.append(added.linear("DequantizeLinear", stored, q, as_unsigned=meets_activations))
        else:
            chain += _fold_when_loaded(stored, q, real.ndim, added)
        graph.insert_before(graph[0], chain)
        for node, index in uses:
            node.replace_input_with(index, chain[-1].outputs[0])


def _is_looked_up(uses: Sequence[tuple[ir.Node, int]]) -> bool:
    """Whether float nodes pick rows of the constant, and nothing else reads it."""
    return all(node.op_type == "Gather" and index == 0 and activation_bits(node) is None for node, index in uses)


def _scale_rows(
    stored: ir.Value, q: Quantization, uses: Sequence[tuple[ir.Node, int]], added: Additions, graph: ir.Graph
) -> None:
    """Behind each Gather, Cast and Mul by the scales of the rows that it picked: ONNX Runtime would widen the whole
    table when it loads the model."""
    scales = added.constant(q.scale.astype(np.float32)[:, None])
    for gather, index in uses:
        gather.replace_input_with(index, stored)
        rows, where = gather.outputs[0], gather.inputs[1]
        assert where is not None
        cast = added.node("Cast", [rows], to=int(ir.DataType.FLOAT))
        scale = added.node("Gather", [scales, where], axis=0)
        real = added.node("Mul", [cast.outputs[0], scale.outputs[0]])
        made = real.outputs[0]
        made.shape, made.type = rows.shape, rows.type
        rows.replace_all_uses_with(made, replace_graph_outputs=True)
        cast.replace_input_with(0, rows)
        rows.name, made.name = made.name, rows.name
        rows.type = ir.TensorType(ir.DataType.INT8)
        graph.insert_after(gather, [cast, scale, real])


def look_up_table(value: ir.Value) -> np.ndarray | None:
    """What a clustered weight's indices stand for, [n], of the type that it is stored in; None where indices and table
    would be no smaller than the weight, or wouldn't be exactly it."""
    book, q, real = codebook(value), quantization(value), constant(value)
    integers = q is not None and q.dtype == ir.DataType.INT8
    if book is None or real is None or integers != (book.scale is None):
        return None
    table, weight, plain, scales = book.centroids, book.values(), real, 0
    if book.scale is not None and book.axis is None:
        table = table * book.scale
    elif book.scale is not None:
        scales = book.scale.nbytes  # multiplied behind the table
    if q is not None:
        plain = q.quantize(real)
        if not integers:
            if scales:
                return None  # a product of float16 numbers is none itself
            table, weight = q.quantize(table), q.quantize(weight)
    indices = (book.indices.size + 1) // 2 if len(table) <= NARROW else book.indices.size
    is_smaller = indices + table.nbytes + scales + LOOK_UP_BYTES < plain.nbytes
    return table if is_smaller and np.array_equal(weight, plain) else None


def _look_up(value: ir.Value, table: np.ndarray, added: Additions, graph: ir.Graph) -> list[ir.Node]:
    """Gather(table, Cast(indices of 4 or 8 bits)): ONNX Runtime folds both when it loads the model."""
    book, name = codebook(value), str(value.name)
    assert book is not None
    if len(table) <= NARROW:
        tensor = ir.tensor(book.indices.astype(ml_dtypes.uint4), dtype=ir.DataType.UINT4, name=name)
    else:
        tensor = ir.tensor(book.indices, name=name)
    indices = ir.Value(name=name, const_value=tensor)
    graph.register_initializer(indices)
    cast = added.node("Cast", [indices], to=int(ir.DataType.INT32))
    return [cast, added.node("Gather", [added.constant(table), cast.outputs[0]])]


def _scaled(stored: ir.Value, book: Codebook | None, rank: int, added: Additions) -> list[ir.Node]:
    """Mul by the scales of float centroids, where there are several."""
    if book is None or book.scale is None or book.axis is None:
        return []
    shape = tuple(-1 if axis == book.axis else 1 for axis in range(rank))
    return [added.node("Mul", [stored, added.constant(book.scale.reshape(shape))])]


def _fold_when_loaded(stored: ir.Value, q: Quantization, rank: int, added: Additions) -> list[ir.Node]:
    cast = added.node("Cast", [stored], to=int(ir.DataType.FLOAT))
    if q.dtype == ir.DataType.FLOAT16:
        return [cast]
    shape = () if q.axis is None else tuple(-1 if axis == q.axis else 1 for axis in range(rank))
    scale = added.constant(q.scale.astype(np.float32).reshape(shape))
    return [cast, added.node("Mul", [cast.outputs[0], scale])]
