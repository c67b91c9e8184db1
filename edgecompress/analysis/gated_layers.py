"""What gates leave out: layers whose output channels, or whose inputs, gates close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.graph.fusion import constant, layers
from edgecompress.graph.gate_products import products
from edgecompress.graph.nodes import integer

POOLS = ("MaxPool", "AveragePool")  # what they make of zeros is zeros


@dataclass(frozen=True)
class GatedLayer:
    """macs: of the layer with all channels. gates: the names of the gates of what it writes and of what it reads, of
    which it computes only the open channels."""

    name: str
    macs: int
    gates: tuple[str, ...]

    def share(self, opened: Mapping[str, np.ndarray]) -> np.ndarray:
        """[n], of each sample: the share of the multiply-accumulates that run. opened: by gate, [n, blocks], how far
        each block is open, 0 to 1."""
        share = np.ones(1)
        for gate in self.gates:
            share = share * opened[gate].mean(1)
        return share


def gated_layers(model: ir.Model) -> list[GatedLayer]:
    """Every layer with multiply-accumulates, in order; `gates` is empty where no gate spares it any."""
    graph = model.graph
    by_node: dict[str, list[str]] = {}
    for product in products(graph):
        gate = str(product.gate.name)
        layer = _maker(graph, product.image)
        while layer is not None and layer.op_type == "Conv":
            by_node.setdefault(str(layer.name), []).append(gate)
            layer = _maker(graph, layer.inputs[0]) if is_depthwise(layer) else None
        for node in _readers(product.node.outputs[0]):
            if node.op_type == "Conv" and integer(node, "group", 1) == 1:
                by_node.setdefault(str(node.name), []).append(gate)
    rows = [(node, row) for node, row in zip(graph, statistics(model).layers, strict=True) if row.macs]
    return [GatedLayer(str(row.name), row.macs, tuple(by_node.get(str(node.name), ()))) for node, row in rows]


def macs_run(rows: Sequence[GatedLayer], opened: Mapping[str, np.ndarray]) -> float:
    """Mean multiply-accumulates of a sample."""
    return sum(row.macs * float(row.share(opened).mean()) for row in rows)


def is_depthwise(node: ir.Node) -> bool:
    """Whether each output channel of a convolution comes of the same input channel."""
    weight = constant(node.inputs[1])
    return weight is not None and weight.shape[0] == integer(node, "group", 1) > 1


def _maker(graph: ir.Graph, value: ir.Value | None) -> ir.Node | None:
    """The first node of the layer that makes a value for one reader alone."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return next((layer.node for layer in layers(graph) if value in layer.last.outputs), None)


def _readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value, or what pools make of it."""
    found = []
    for node in value.consumers():
        found += _readers(node.outputs[0]) if node.op_type in POOLS else [node]
    return found
