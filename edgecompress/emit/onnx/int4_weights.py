"""int4 weights in blocks, beside float activations.

A matrix is an INT4 initializer [in, out] behind a DequantizeLinear with `block_size`, which ONNX Runtime makes one
MatMulNBits with the product. It does so for MatMul in all versions since 1.20, for Gemm in late ones alone, so that
Gemm is written as MatMul and Add.

A table holds two whole numbers in each byte, since Gather takes no INT4 in ONNX Runtime, which would also widen all of
a table behind DequantizeLinear in each run. Byte j of a row has number j in its lower four bits and number j + half in
its upper ones, 8 higher than they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgecompress.emit.onnx.additions import Additions
from edgecompress.graph.annotations import Quantization, quantization
from edgecompress.graph.fusion import constant

OFFSET = 8  # makes whole numbers of four bits positive


def write_int4_weights(graph: ir.Graph, added: Additions) -> None:
    """Replaces each matrix and table that is annotated as int4 in blocks."""
    for value in list(graph.initializers.values()):
        q, real = quantization(value), constant(value)
        if q is None or q.block is None or real is None:
            continue
        users = [use.node for use in value.uses()]
        graph.initializers.pop(str(value.name))
        if all(node.op_type == "Gather" for node in users):
            _write_table(graph, value, q, users, added)
        else:
            _write_matrix(graph, value, q, users, added)


def _write_matrix(
    graph: ir.Graph, value: ir.Value, q: Quantization, users: Sequence[ir.Node], added: Additions
) -> None:
    whole = q.quantize(np.asarray(constant(value)))
    assert q.block is not None
    stored = _int4(graph, str(value.name), whole if q.axis == 1 else whole.T)
    inputs = [stored, added.constant(np.ascontiguousarray(q.scale.T, np.float32))]
    if q.zero_point.any():
        inputs.append(_int4(graph, f"{value.name}/zero_point", q.zero_point.T))
    widened = added.node("DequantizeLinear", inputs, axis=0, block_size=q.block)
    graph.insert_before(users[0], [widened])
    for node in users:
        if node.op_type == "Gemm":
            _as_product(graph, node, widened.outputs[0], added)
        else:
            node.replace_input_with(1, widened.outputs[0])


def _int4(graph: ir.Graph, name: str, whole: np.ndarray) -> ir.Value:
    """An initializer."""
    tensor = ir.tensor(np.ascontiguousarray(whole).astype(ml_dtypes.int4), dtype=ir.DataType.INT4, name=name)
    value = ir.Value(name=name, const_value=tensor)
    graph.register_initializer(value)
    return value


def _as_product(graph: ir.Graph, gemm: ir.Node, matrix: ir.Value, added: Additions) -> None:
    """MatMul, which keeps the name of the user's node, and Add of the bias."""
    x, bias, before = gemm.inputs[0], gemm.inputs[2], gemm.outputs[0]
    assert x is not None and bias is not None  # ingest gives every Gemm a bias
    product = added.node("MatMul", [x, matrix])
    total = added.node("Add", [product.outputs[0], bias])
    made = total.outputs[0]
    made.shape, made.type = before.shape, before.type
    graph.insert_before(gemm, [product, total])
    before.replace_all_uses_with(made, replace_graph_outputs=True)
    before.name, made.name = made.name, before.name
    product.name = gemm.name
    added.nodes.remove(product)
    graph.remove(gemm, safe=True)


def _write_table(graph: ir.Graph, value: ir.Value, q: Quantization, users: Sequence[ir.Node], added: Additions) -> None:
    whole = q.quantize(np.asarray(constant(value)))
    columns, name = whole.shape[1], str(value.name)
    half = (columns + 1) // 2
    positive = np.zeros((len(whole), 2 * half), np.uint8)
    positive[:, :columns] = whole + OFFSET
    table = ir.Value(name=name, const_value=ir.tensor(positive[:, :half] | positive[:, half:] << 4, name=name))
    graph.register_initializer(table)
    scales = added.constant(q.scale.astype(np.float32))
    points = added.constant((q.zero_point + OFFSET).astype(np.uint8)) if q.zero_point.any() else None
    assert q.block is not None
    of_column = added.constant(np.arange(columns) // q.block) if q.scale.shape[1] > 1 else None
    for gather in users:
        where, before = gather.inputs[1], gather.outputs[0]
        assert where is not None
        nodes: list[ir.Node] = []

        def node(op_type: str, *inputs: ir.Value, nodes: list[ir.Node] = nodes, **attributes: int | str) -> ir.Value:
            nodes.append(added.node(op_type, list(inputs), **attributes))
            return nodes[-1].outputs[0]

        def of_weights(parameters: ir.Value, where: ir.Value = where) -> ir.Value:
            """[rows, blocks] -> those of the weights in the rows that were picked."""
            rows = node("Gather", parameters, where, axis=0)
            return rows if of_column is None else node("Gather", rows, of_column, axis=-1)

        lower = node("BitwiseAnd", before, added.constant(np.array(15, np.uint8)))
        upper = node("BitShift", before, added.constant(np.array(4, np.uint8)), direction="RIGHT")
        both = node("Concat", lower, upper, axis=-1)
        if 2 * half > columns:
            both = node("Gather", both, added.constant(np.arange(columns)), axis=-1)
        real = node("Cast", both, to=int(ir.DataType.FLOAT))
        point = added.constant(np.array(OFFSET, np.float32))
        if points is not None:
            point = node("Cast", of_weights(points), to=int(ir.DataType.FLOAT))
        made = node("Mul", node("Sub", real, point), of_weights(scales))
        made.shape, made.type = before.shape, before.type
        before.replace_all_uses_with(made, replace_graph_outputs=True)
        before.name, made.name = made.name, before.name
        gather.replace_input_with(0, table)
        before.type = ir.TensorType(ir.DataType.UINT8)
        graph.insert_after(gather, nodes)
        for first in nodes[:2]:
            first.replace_input_with(0, before)
