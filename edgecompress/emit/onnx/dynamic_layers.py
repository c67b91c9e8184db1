"""Products of float activations and int8 matrices, computed on integers: each row is quantized as it comes.

ONNX Runtime computes MatMulInteger of uint8 rows and int8 weights in its integer kernels. Of a row, lo = min(x, 0) and
w = max(x, 0) - lo, so that q = round(255 (x - lo) / w) is uint8, and with the matrix W = S * stored

    x W = (w / 255) * (q stored) * S + lo * (1 W)

whose last term, with the bias, is a product of [lo, 1] and a matrix of two rows. DynamicQuantizeLinear has one scale
for all rows; ONNX Runtime fuses it with the product, which is faster and less exact: on all-MiniLM-L6-v2, 18.9 dB
beside 26.9 dB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.emit.onnx.additions import Additions, unsigned
from edgecompress.graph.annotations import Quantization, codebook, is_integer, quantization
from edgecompress.graph.fusion import Layer, constant

LEAST = 1 << 16  # weights of a layer: below, a product of floats is as fast
DEEPEST = 1 << 16  # inputs of one output whose products of uint8 and int8 fit into 32 bits
SMALLEST = 1e-35  # width of a row: 255 over it is a float32


def write_dynamic_layers(graph: ir.Graph, groups: Sequence[Layer], added: Additions, *, as_unsigned: bool) -> None:
    """Replaces MatMul and Gemm of float layers with large int8 matrices. groups: layers of the graph.

    as_unsigned: whether matrices are uint8 with zero point 128, for x86 without VNNI.
    """
    rows: dict[ir.Value, _Rows] = {}
    for layer in groups:
        if (weight := _weight(layer)) is not None and (q := quantization(weight)) is not None:
            x = layer.node.inputs[0]
            assert x is not None
            if x not in rows:
                rows[x] = _Rows(x, added)
                _insert(graph, x, rows[x].nodes)
            _write(graph, layer, weight, q, rows[x], added, as_unsigned)
            if not weight.uses():
                graph.initializers.pop(str(weight.name))


def _weight(layer: Layer) -> ir.Value | None:
    """The matrix of a layer that is written so."""
    if layer.node.op_type not in ("MatMul", "Gemm") or is_integer(layer.node):
        return None
    value = layer.node.inputs[1]
    q, array = quantization(value), constant(value)
    if value is None or q is None or array is None or q.dtype != ir.DataType.INT8 or codebook(value) is not None:
        return None
    if q.block is not None:
        return None
    if any(use.node.op_type not in ("MatMul", "Gemm") for use in value.uses()):
        return None  # a table as well, which the file has once
    depth = array.shape[1] if layer.node.op_type == "Gemm" else array.shape[0]
    return value if array.ndim == 2 and array.size >= LEAST and depth < DEEPEST else None


class _Rows:
    """An activation's rows as uint8. stored: the integers; step: w / 255 of each row; ends: [lo, 1] of each."""

    def __init__(self, x: ir.Value, added: Additions) -> None:
        self.nodes: list[ir.Node] = []

        def node(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
            self.nodes.append(added.node(op_type, list(inputs), **attributes))
            return self.nodes[-1].outputs[0]

        def number(real: float) -> ir.Value:
            return added.constant(np.array(real, np.float32))

        last, zero = added.constant(np.array([-1], np.int64)), number(0.0)
        low = node("Min", node("ReduceMin", x, last), zero)
        high = node("Max", node("ReduceMax", x, last), zero)
        width = node("Max", node("Sub", high, low), number(SMALLEST))
        inverse = node("Div", number(255.0), width)
        offset = node("Sub", number(0.5), node("Mul", low, inverse))  # Cast rounds down
        self.stored = node("Cast", node("Add", node("Mul", x, inverse), offset), to=int(ir.DataType.UINT8))
        self.step = node("Mul", width, number(1 / 255))
        rank = len(x.shape) if x.shape is not None else 2
        pads = added.constant(np.array([0] * (2 * rank - 1) + [1], np.int64))
        self.ends = node("Pad", low, pads, number(1.0))


def _write(
    graph: ir.Graph, layer: Layer, weight: ir.Value, q: Quantization, rows: _Rows, added: Additions, as_unsigned: bool
) -> None:
    array = np.asarray(constant(weight))
    whole = q.quantize(array)
    whole = np.ascontiguousarray(whole.T) if layer.node.op_type == "Gemm" else whole  # [in, out]
    scale = np.broadcast_to(q.scale, whole.shape[1]).astype(np.float32)
    bias = constant(layer.bias)
    ends = np.zeros((2, whole.shape[1]), np.float32)
    ends[0] = whole.sum(axis=0, dtype=np.int64) * scale.astype(np.float64)
    ends[1] = 0.0 if bias is None else bias
    factors: list[ir.Value] = [rows.stored, _matrix(graph, weight, whole, as_unsigned)]
    if as_unsigned:
        factors += [added.constant(np.array(n, np.uint8)) for n in (0, 128)]
    product = added.node("MatMulInteger", factors)
    real = added.node("Cast", [product.outputs[0]], to=int(ir.DataType.FLOAT))
    by_row = added.node("Mul", [real.outputs[0], rows.step])
    scaled = added.node("Mul", [by_row.outputs[0], added.constant(scale)])
    rest = added.node("MatMul", [rows.ends, added.constant(ends)])
    total = added.node("Add", [scaled.outputs[0], rest.outputs[0]])
    old = layer.bias_add or layer.node
    made, before = total.outputs[0], old.outputs[0]
    made.shape, made.type = before.shape, before.type
    graph.insert_before(old, [product, real, by_row, scaled, rest, total])
    before.replace_all_uses_with(made, replace_graph_outputs=True)
    before.name, made.name = made.name, before.name
    product.name = layer.node.name
    added.nodes.remove(product)  # it keeps the name of the user's node
    for node in dict.fromkeys([old, layer.node]):
        graph.remove(node, safe=True)


def _matrix(graph: ir.Graph, weight: ir.Value, whole: np.ndarray, as_unsigned: bool) -> ir.Value:
    """Once for all layers that read the weight."""
    name = f"{weight.name}/int8"
    if name not in graph.initializers:
        stored = unsigned(whole) if as_unsigned else whole
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(stored, name=name)))
    return graph.initializers[name]


def _insert(graph: ir.Graph, x: ir.Value, nodes: Sequence[ir.Node]) -> None:
    producer = x.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)
