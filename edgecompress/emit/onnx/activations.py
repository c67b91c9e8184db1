"""int8 activations: a QuantizeLinear and a DequantizeLinear for each value.

They are written as uint8 (zero point + 128: the same real values). ONNX Runtime on x86 turns int8 ones
into uint8 by itself, but not those with two consumers, and then leaves both sides of each unfused:
ResNet-8 takes 319 us in int8 and 137 us in uint8 (1.31, one thread). Weights are int8
here; `unsigned_weights.py` says for which CPUs they are not.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.emit.onnx.additions import Additions, values
from edgecompress.emit.onnx.constants import WEIGHTED
from edgecompress.graph.annotations import INTEGER_RANGE, Quantization, activation_bits, is_integer, quantization
from edgecompress.graph.fusion import Layer, constant

CLIPPED = {"Conv", "Gemm", "Add", "Mul", "AveragePool"}  # have an integer kernel, none with an activation


def insert_pairs(graph: ir.Graph, groups: Sequence[Layer], added: Additions) -> None:
    """Writes the Quantization of inputs and computed values into the graph. groups: its layers.

    1. An activation that its output's int8 range implies (Relu with zero point -128) is taken out.
    2. One that is not implied gets a pair in front, so that the layer before it is still fused.
    3. Values of int8 layers, and what int8 layers read from elsewhere, pass through a pair.
    4. Identity in int8 only says where to requantize: the pairs on both sides of it remain.
    """
    int8_layers = [layer for layer in groups if is_integer(layer.node)]
    int8_nodes = {node for layer in int8_layers for node in layer.nodes}
    shielded = {node for layer in groups if _must_not_fuse(layer.node) for node in layer.nodes}
    pairs = _Pairs(graph, int8_nodes, shielded, added)
    for layer in int8_layers:
        _settle_activation(layer, pairs)
    idle = [node for node in int8_nodes if node.graph is not None and _changes_nothing(node)]
    for value in list(values(graph)):
        if not value.is_initializer() and (q := quantization(value)) is not None:
            pairs.settle(value, q)
    for node in idle:
        _take_out(node)
    for node in graph:
        if node.op_type == "AveragePool" and not _dilated(node):
            node.attributes.pop("dilations", None)  # QLinearAveragePool refuses the attribute, ones too


@dataclass(frozen=True)
class _Pairs:
    graph: ir.Graph
    int8_nodes: Set[ir.Node]
    shielded: Set[ir.Node]
    added: Additions

    def settle(self, value: ir.Value, q: Quantization) -> None:
        """Puts a pair where the value is read as int8."""
        uses = [(use.node, use.idx) for use in value.uses()]
        if value.producer() in self.int8_nodes:
            paired = self.insert(value, q, uses)
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[index] = paired
            value.name, paired.name = paired.name, value.name
        elif uses := [(node, index) for node, index in uses if node in self.int8_nodes]:
            self.insert(value, q, uses)  # float in memory: only int8 layers read it rounded

    def insert(self, value: ir.Value, q: Quantization, uses: Sequence[tuple[ir.Node, int]]) -> ir.Value:
        """value -> QuantizeLinear -> DequantizeLinear -> uses; returns the last one's output."""
        producer = value.producer()
        nodes = [self.added.node("Max", [value])] if producer in self.shielded else []
        for op_type in ("QuantizeLinear", "DequantizeLinear"):
            source = nodes[-1].outputs[0] if nodes else value
            nodes.append(self.added.linear(op_type, source, q, as_unsigned=True))
        if producer is None:
            self.graph.insert_before(self.graph[0], nodes)
        else:
            self.graph.insert_after(producer, nodes)
        result = nodes[-1].outputs[0]
        result.shape, result.type = value.shape, value.type
        for node, index in uses:
            node.replace_input_with(index, result)
        return result


def _settle_activation(layer: Layer, pairs: _Pairs) -> None:
    q = quantization(layer.output)
    if layer.activation is None or q is None:
        return
    source = layer.activation.inputs[0]
    assert source is not None
    if _changes_nothing(layer.activation):
        source.name = layer.output.name
        source.meta.update(layer.output.meta)
        _take_out(layer.activation)
    elif layer.node.op_type in CLIPPED:
        pairs.insert(source, q, [(layer.activation, 0)])


def _take_out(node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None and node.graph is not None
    node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def _must_not_fuse(node: ir.Node) -> bool:
    """Whether ONNX Runtime (1.31) would go wrong between the pairs on both sides of a node; a Max of one
    input in front of the second pair keeps it from fusing.

    It quantizes a layer's float weights by itself, per tensor, when the layer stands between pairs, which undoes
    mixed precision and takes 3 to 6 dB from int16 layers; and it has no dilated QLinearAveragePool, but makes one all
    the same.
    """
    if node.op_type == "AveragePool":
        return _dilated(node)
    return node.op_type in WEIGHTED and activation_bits(node) != 8


def _dilated(node: ir.Node) -> bool:
    return any(step != 1 for step in node.attributes.get_ints("dilations", ()))


def _changes_nothing(node: ir.Node) -> bool:
    """Whether an int8 node is the identity before its output's rounding and saturation.

    Rounding is monotone: where both bounds round to the ends of the int8 range, clipping to them first
    makes no difference.
    """
    q, bounds = quantization(node.outputs[0]), _bounds(node)
    if q is None or bounds is None or q.dtype not in INTEGER_RANGE:
        return False
    return tuple(q.quantize(np.array([bound]))[0] for bound in bounds) == INTEGER_RANGE[q.dtype]


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """Lowest and highest output of a node that is the identity in between, else None."""
    if node.op_type == "Identity":
        return -np.inf, np.inf
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip" or any(v is not None and constant(v) is None for v in node.inputs[1:]):
        return None
    low, high = ([constant(v) for v in node.inputs[1:]] + [None, None])[:2]
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)
