"""Decides which layers compute on int8 and which stay in float."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.calibrate import runtime_values
from edgecompress.compress.quantize.groups import Groups
from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.graph.annotations import Quantization, stays_float
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.graph.nodes import argument
from edgecompress.graph.provenance import label
from edgecompress.lowering.scales import SOFTMAX_BITS
from edgecompress.operators import record_of
from edgecompress.recipe import Quantize

Histograms = Mapping[str, Histogram]
LEAST_STEP = 4 * 2.0**-SOFTMAX_BITS  # of a Softmax's inputs, with a margin for ranges that are narrower
AVERAGES = ("ReduceMean", "GlobalAveragePool", "AveragePool")
SATURATING = 0.01  # share of values outside an operator's fixed range that calls for float


def require_integer(model: ir.Model, settings: Quantize) -> None:
    """Raises UnsupportedModelError, which names every node that would stay in float. Needs no calibration."""
    calibrated = {str(v.name) for v in runtime_values(model)}
    require_all(model.graph, int8_nodes(model.graph, calibrated, settings, integer_only=True))


def int8_nodes(
    graph: ir.Graph,
    calibrated: Set[str],
    settings: Quantize,
    joins: Set[ir.Node] = frozenset(),
    *,
    integer_only: bool = False,
) -> set[ir.Node]:
    """All nodes of the layers that will be int8. joins: what only joins outputs, in float. integer_only: whether floats
    are out of the question."""
    require_nodes(graph, settings)
    groups = layers(graph)
    excluded = {*settings.float_layers, *settings.dynamic_layers}
    chosen = {layer.node: layer for layer in groups if layer.node not in joins and _eligible(layer, calibrated)}
    for layer in groups:
        if any(n.name in excluded or any(v.name in excluded for v in n.outputs) for n in layer.nodes):
            chosen.pop(layer.node, None)
    for find in (_idle,) if integer_only else (_idle, _cheaper_in_float):
        for layer in find(list(chosen.values()), graph):
            del chosen[layer.node]
    return {node for layer in chosen.values() for node in layer.nodes}


def _eligible(layer: Layer, calibrated: Set[str]) -> bool:
    if operators.rule(layer) is None or any(map(stays_float, layer.nodes)):
        return False
    data = [v for _, v in operators.data_inputs(layer)]
    computed = [v for v in data if constant(v) is None]
    known = all(v.name in calibrated for v in computed + operators.outputs(layer))
    return known and all(v.dtype == ir.DataType.FLOAT for v in data)


def _idle(chosen: list[Layer], graph: ir.Graph) -> list[Layer]:
    """Layers that only move numbers, in chains that no computing int8 layer touches."""
    passive = [layer for layer in chosen if operators.RULES[layer.node.op_type].passive]
    chains = Groups()
    for layer in passive:
        chains.join(_activations(layer))
    busy = {chains.find(v) for layer in chosen if layer not in passive for v in _activations(layer)}
    return [layer for layer in passive if chains.find(layer.output) not in busy]


def _cheaper_in_float(chosen: list[Layer], graph: ir.Graph) -> list[Layer]:
    """Layers without products that need fewer conversions as floats than as int8, since floats are around them: such as
    the sum of a norm's output and a matrix's, of which another norm is taken. They are more exact as well."""
    left = {layer.node: layer for layer in chosen}
    makers = {v: layer for layer in layers(graph) for v in layer.last.outputs}
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in makers.values():
        for value in {v for node in layer.nodes for v in node.inputs if v is not None}:
            readers.setdefault(value, []).append(layer)
    found: list[Layer] = []
    while True:
        more = [
            layer for layer in left.values() if _is_light(layer) and _saves_conversions(layer, left, makers, readers)
        ]
        if not more:
            return found
        found += more[:1]
        del left[more[0].node]


def _is_light(layer: Layer) -> bool:
    return not record_of(layer.node).macs(layer.node) and not operators.RULES[layer.node.op_type].passive


def _saves_conversions(
    layer: Layer,
    chosen: Mapping[ir.Node, Layer],
    makers: Mapping[ir.Value, Layer],
    readers: Mapping[ir.Value, list[Layer]],
) -> bool:
    inputs = {v for _, v in operators.data_inputs(layer) if constant(v) is None}
    made_in_float = {v for v in inputs if v in makers and makers[v].node not in chosen}
    outputs = operators.outputs(layer)
    read_in_int8 = [v for v in outputs if any(r.node in chosen for r in readers.get(v, ()))]
    read_in_float = [v for v in outputs if any(r.node not in chosen for r in readers.get(v, ()))]
    as_int8 = len(made_in_float) + len(read_in_float)
    return len(inputs) - len(made_in_float) + len(read_in_int8) < as_int8


def _activations(layer: Layer) -> list[ir.Value]:
    """The computed int8 values that the layer reads and writes."""
    data = [v for _, v in operators.data_inputs(layer) if constant(v) is None]
    return data + operators.outputs(layer)


def require_all(graph: ir.Graph, chosen: Set[ir.Node]) -> None:
    """Raises UnsupportedModelError, which names every node that computes floats and is not among the chosen."""
    left = [node for node in graph if node not in chosen and _is_float(node)]
    if left:
        listed = ", ".join(dict.fromkeys(label(node) for node in left))
        raise UnsupportedModelError(
            f"this target computes on integers only, but these nodes would stay in float: {listed}; replace "
            "them with operators that have an int8 kernel, take them out of quantize.float_layers, or choose a "
            "target that computes in float"
        )


def _is_float(node: ir.Node) -> bool:
    return any(v is not None and v.dtype == ir.DataType.FLOAT for v in (*node.inputs, *node.outputs))


def beyond_fixed_range(graph: ir.Graph, chosen: set[ir.Node], histograms: Histograms) -> set[ir.Node]:
    """The nodes of layers whose outputs saturate in the range that their operator fixes, and those of each Softmax
    whose inputs are too small for its kernels: all outputs are alike then."""
    found: set[ir.Node] = set()
    for layer in layers(graph):
        q = operators.RULES[layer.node.op_type].fixed if layer.node in chosen else None  # the same range at 16 bits
        if q is None:
            continue
        low, high = (float(end) for end in q.dequantize(np.array([-128, 127])))
        if layer.node.op_type == "Softmax" and _hardly_differ(layer.node, histograms):
            found.update(layer.nodes)
        values = histograms[str(layer.output.name)]
        if values.quantile(SATURATING) < 1.1 * low or values.quantile(1 - SATURATING) > 1.1 * high:
            found.update(layer.nodes)
    return found


def _hardly_differ(node: ir.Node, histograms: Histograms) -> bool:
    values = histograms.get(str(argument(node, 0).name))
    return values is not None and values.maximum - values.minimum < 255 * LEAST_STEP


def last_probabilities(graph: ir.Graph, chosen: set[ir.Node]) -> dict[ir.Node, Quantization]:
    """Nodes such as Softmax that only the graph's outputs read, and means of what they give, which stay float where the
    output is float anyway; with the scale that holds all probabilities.

    Int8 would make classes equal that are closer than 1/256, and XNNPACK has no int8 kernel for them. The calibrated
    range of a mean would cut off probabilities that no calibration sample has.
    """
    found: dict[ir.Node, Quantization] = {}
    for output in graph.outputs:
        nodes, value, uses = list[ir.Node](), output, 0
        while (node := value.producer()) is not None and node in chosen and len(value.uses()) == uses:
            nodes.append(node)
            if (q := operators.RULES[node.op_type].fixed) is not None:
                averaged = len(nodes) == 1 or any(n.op_type in AVERAGES for n in nodes)
                found |= dict.fromkeys(nodes, q) if averaged else {}
                break
            data = [v for v in node.inputs if v is not None and constant(v) is None]
            if len(data) > 1 or not (node.op_type in AVERAGES or operators.RULES[node.op_type].passive):
                break
            value, uses = data[0], 1
    return found


def require_nodes(graph: ir.Graph, settings: Quantize) -> None:
    """Raises InputError when one of quantize.float_layers, int16_layers or layer_weights is not in the model."""
    known = {node.name for node in graph} | {v.name for node in graph for v in node.outputs}
    int16 = [name for name in settings.int16_layers if name != "*"]
    named = {
        "float_layers": settings.float_layers,
        "dynamic_layers": settings.dynamic_layers,
        "int16_layers": int16,
        "layer_weights": [*settings.layer_weights],
    }
    for key, names in named.items():
        if unknown := [name for name in names if name not in known]:
            listed = ", ".join(map(repr, unknown))
            raise InputError(f"quantize.{key}: the model has no node or value named {listed}")
