"""Decides which layers run on int8 and with which scales, and records it on values and nodes."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators, ranges
from edgecompress.compress.quantize.calibrate import Calibration, runtime_values
from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.compress.quantize.weights import quantize_bias, quantize_range, quantize_weight
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.graph.annotations import Quantization, quantization, set_int8, set_quantization
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.recipe import Quantize

Histograms = Mapping[str, Histogram]
PIXEL_RANGE = (0.0, 255.0)


def quantize_static(
    model: ir.Model, calibration: Calibration, settings: Quantize, *, integer_only: bool = False
) -> ir.Model:
    """A clone annotated for int8 weights and activations and int32 biases.

    1. A layer is int8 when its operators have int8 kernels and its activations were calibrated, unless it
       is in settings.float_layers. Data movement between float layers stays float.
    2. Values tied by operators with equal scales in and out form one group; its range comes from all of
       its values together. An output with a scale fixed by its operator leaves a group that has others
       through an Identity, which requantises.
    3. Constants that are operands get a scale of their own, or their group's.
    4. Weights: per output channel; biases at input scale * weight scale.

    Raises UnsupportedModelError when integer_only and a layer can't be int8, naming all of them, and
    InputError when float_layers has names that the model has not.
    """
    clone = model.clone()
    graph, histograms = clone.graph, dict(calibration.histograms)
    chosen = _int8_nodes(graph, set(histograms), settings)
    if integer_only:
        _require_all(graph, chosen)
    for requantize, source in _separate_fixed(graph, chosen):
        chosen.add(requantize)
        histograms[str(requantize.outputs[0].name)] = histograms[str(source.name)]
    for node in graph:
        set_int8(node, node in chosen)
    groups = [layer for layer in layers(graph) if layer.node in chosen]
    _own_constants(graph, groups)
    _assign_activations(groups, histograms, settings)
    for layer in groups:
        _assign_weights(layer, settings)
    return clone


def require_integer(model: ir.Model, settings: Quantize) -> None:
    """Raises UnsupportedModelError, naming every node that would stay float; needs no calibration."""
    _require_all(model.graph, _int8_nodes(model.graph, {str(v.name) for v in runtime_values(model)}, settings))


class Groups:
    """Union-find over values."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def find(self, value: ir.Value) -> ir.Value:
        root = value
        while (parent := self._parent.setdefault(root, root)) is not root:
            root = parent
        while value is not root:
            self._parent[value], value = root, self._parent[value]
        return root

    def join(self, values: Iterable[ir.Value]) -> None:
        first, *rest = values
        for value in rest:
            self._parent[self.find(value)] = self.find(first)

    def members(self) -> dict[ir.Value, list[ir.Value]]:
        result: dict[ir.Value, list[ir.Value]] = {}
        for value in self._parent:
            result.setdefault(self.find(value), []).append(value)
        return result


def _check_names(graph: ir.Graph, names: list[str]) -> None:
    known = {node.name for node in graph} | {v.name for node in graph for v in node.outputs}
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"quantize.float_layers: the model has no node or value named {', '.join(map(repr, unknown))}")


def _int8_nodes(graph: ir.Graph, calibrated: Set[str], settings: Quantize) -> set[ir.Node]:
    """All nodes of the layers that will be int8."""
    _check_names(graph, settings.float_layers)
    groups = layers(graph)
    excluded = set(settings.float_layers)
    chosen = {layer.node: layer for layer in groups if _eligible(layer, calibrated)}
    for layer in groups:
        if any(n.name in excluded or any(v.name in excluded for v in n.outputs) for n in layer.nodes):
            chosen.pop(layer.node, None)
    for layer in _idle(list(chosen.values()), graph):
        del chosen[layer.node]
    return {node for layer in chosen.values() for node in layer.nodes}


def _eligible(layer: Layer, calibrated: Set[str]) -> bool:
    if operators.rule(layer) is None:
        return False
    data = [v for _, v in operators.data_inputs(layer)]
    values = data + operators.outputs(layer)
    known = all(v.name in calibrated or constant(v) is not None for v in values)
    return known and all(v.dtype == ir.DataType.FLOAT for v in data) and not all(constant(v) is not None for v in data)


def _idle(chosen: list[Layer], graph: ir.Graph) -> list[Layer]:
    """Layers that only move numbers, in chains that no computing int8 layer touches."""
    passive = [layer for layer in chosen if operators.RULES[layer.node.op_type].passive]
    chains = Groups()
    for layer in passive:
        chains.join(_activations(layer))
    busy = {chains.find(v) for layer in chosen if layer not in passive for v in _activations(layer)}
    return [layer for layer in passive if chains.find(layer.output) not in busy]


def _activations(layer: Layer) -> list[ir.Value]:
    """Computed int8 values the layer reads and writes."""
    data = [v for _, v in operators.data_inputs(layer) if constant(v) is None]
    return data + operators.outputs(layer)


def _require_all(graph: ir.Graph, chosen: set[ir.Node]) -> None:
    left = [
        node for node in graph
        if node not in chosen and any(v is not None and v.dtype == ir.DataType.FLOAT for v in (*node.inputs, *node.outputs))
    ]
    if left:
        listed = ", ".join(f"{node.op_type} {node.name or node.outputs[0].name!r}" for node in left)
        raise UnsupportedModelError(
            f"this target computes on integers only, and these nodes would stay in float: {listed}; replace them "
            "by operators with an int8 kernel, take them out of quantize.float_layers, or choose a target with float"
        )


def _separate_fixed(graph: ir.Graph, chosen: set[ir.Node]) -> list[tuple[ir.Node, ir.Value]]:
    """Put an Identity behind outputs of fixed scale whose groups have others; returns (Identity, source)."""
    groups = [layer for layer in layers(graph) if layer.node in chosen]
    fixed = {v: operators.RULES[layer.node.op_type].fixed for layer in groups for v in operators.outputs(layer)}
    fixed = {v: q for v, q in fixed.items() if q is not None}
    tied = [layer for layer in groups if operators.ties(layer)]
    inside = {v for layer in tied for v in operators.outputs(layer)}
    added = []
    for members in _same_groups(tied).members().values():
        sources = [v for v in members if v not in inside]
        held = [v for v in sources if v in fixed]
        if not held or (len(held) == len(sources) and all(fixed[v].same_as(fixed[held[0]]) for v in held)):
            continue
        for value in held:
            uses = [(n, i) for n, i in value.uses() if any(n is layer.node for layer in tied)]
            requantize = ir.node("Identity", [value], name=f"{value.name}/requantize")
            output = requantize.outputs[0]
            output.name, output.shape, output.type = f"{value.name}/requantized", value.shape, value.type
            graph.insert_after(value.producer(), requantize)
            for node, index in uses:
                node.replace_input_with(index, output)
            added.append((requantize, value))
    return added


def _same_groups(tied: list[Layer]) -> Groups:
    """Values that layers with equal scales in and out tie together, constants included."""
    groups = Groups()
    for layer in tied:
        groups.join([v for _, v in operators.data_inputs(layer)] + operators.outputs(layer))
    return groups


def _own_constants(graph: ir.Graph, groups: list[Layer]) -> None:
    """A constant that several nodes read gets a copy for each int8 one: their scales may differ."""
    for layer in groups:
        indexed = list(operators.data_inputs(layer))
        weights = operators.weight(layer)
        if weights is not None:
            indexed.append((operators.RULES[layer.node.op_type].weight, weights))
        owned = [(layer.node, i, v) for i, v in indexed]
        if layer.bias is not None:
            reader = layer.bias_add or layer.node
            owned.append((reader, next(i for i, v in enumerate(reader.inputs) if v is layer.bias), layer.bias))
        for node, index, value in owned:
            if constant(value) is None or len(value.uses()) == 1:
                continue
            name = f"{value.name}/{node.outputs[0].name}/{index}"
            copy = ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)
            graph.register_initializer(copy)
            node.replace_input_with(index, copy)


def _assign_activations(groups: list[Layer], histograms: Histograms, settings: Quantize) -> None:
    tied = [layer for layer in groups if operators.ties(layer)]
    same = _same_groups(tied)
    fixed: dict[ir.Value, Quantization] = {}
    for layer in groups:
        own = operators.RULES[layer.node.op_type].fixed
        for value in [v for _, v in operators.data_inputs(layer)] + operators.outputs(layer):
            same.find(value)  # a group of its own, if no other
        fixed |= {same.find(v): own for v in operators.outputs(layer) if own is not None}
    for root, members in same.members().items():
        chosen = fixed.get(root) or quantize_range(*_group_range(members, histograms, settings))
        for value in members:
            set_quantization(value, chosen)


def _group_range(members: list[ir.Value], histograms: Histograms, settings: Quantize) -> ranges.Range:
    computed = [v for v in members if constant(v) is None]
    if not computed:
        array = constant(members[0])
        return float(array.min()), float(array.max())
    merged = histograms[computed[0].name]
    for value in computed[1:]:
        merged = merged.merged(histograms[value.name])
    if merged.total == 0:
        return 0.0, 0.0
    if _is_image(merged) and any(v.is_graph_input() for v in computed):
        return PIXEL_RANGE
    low, high = ranges.METHODS[settings.calibration](merged, settings)
    low, high = min(low, 0.0), max(high, 0.0)
    span = high - low
    for value in members:
        if (array := constant(value)) is not None and array.size:
            # A constant widens the range, but a mask's "minus infinity" saturates instead of taking all of it.
            low, high = min(low, max(float(array.min()), low - span)), max(high, min(float(array.max()), high + span))
    return low, high


def _is_image(histogram: Histogram) -> bool:
    """Whole numbers 0..255 that use the upper half: then scale 1 makes quantising the input exact."""
    return histogram.integral and histogram.minimum >= 0 and 127 < histogram.maximum <= PIXEL_RANGE[1]


def _assign_weights(layer: Layer, settings: Quantize) -> None:
    value = operators.weight(layer)
    if value is None:
        return
    axis = operators.weight_axis(layer.node) if settings.per_channel else None
    source = quantization(layer.node.inputs[0])
    assert source is not None
    input_scale = float(source.scale[0])
    bias = constant(layer.bias)
    weights = quantize_weight(np.asarray(constant(value)), axis, bias=bias, input_scale=input_scale)
    set_quantization(value, weights)
    if layer.bias is not None:
        set_quantization(layer.bias, quantize_bias(weights, input_scale))
