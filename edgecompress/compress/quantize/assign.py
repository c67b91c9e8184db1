"""Static quantization: scales for all values of the int8 layers, recorded on values and nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import attention_masks, operators, ranges
from edgecompress.compress.quantize.bit_widths import int16_nodes, separate_widths, stored_bits
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.dynamic import store_weights
from edgecompress.compress.quantize.given_scales import given_range, requantized, separate_given, without_scale
from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.compress.quantize.joins import unlike_joins
from edgecompress.compress.quantize.names import Names
from edgecompress.compress.quantize.precision import (
    Histograms,
    beyond_fixed_range,
    int8_nodes,
    last_probabilities,
    require_all,
)
from edgecompress.compress.quantize.tied import Tied, same_scales, tied_values
from edgecompress.compress.quantize.weight_scales import (
    keep_clusters,
    keep_grid,
    quantize_bias,
    quantize_range,
    quantize_weight,
)
from edgecompress.compress.quantize.weight_types import weight_types
from edgecompress.errors import InputError
from edgecompress.graph.annotations import (
    Quantization,
    activation_bits,
    comes_quantized,
    given_quantization,
    is_integer,
    quantization,
    set_activation_bits,
    set_codebook,
    set_quantization,
)
from edgecompress.graph.few_bits import WeightType
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.graph.joined_outputs import set_joins_output
from edgecompress.graph.states import state_values
from edgecompress.operators import record_of
from edgecompress.recipe import Quantize

PIXEL_RANGE = (0.0, 255.0)
LARGEST = 1e30  # LiteRT aborts the process on the scales that values far above this have


def quantize_static(
    model: ir.Model, calibration: Calibration, settings: Quantize, *, integer_only: bool = False
) -> ir.Model:
    """A clone annotated for int8 weights, int8 or int16 activations, and int32 or int64 biases.

    1. A layer is int8 when its operators have int8 kernels and its activations were calibrated, unless it
       is in settings.float_layers, or a value is too large for a scale. Data movement between float layers
       stays float, and so does a LogSoftmax (unless integer_only) whose values the range that its kernel
       fixes does not hold.
    2. Values tied by operators with equal scales in and out form one group; its range comes from all of
       its values together. An output with a scale fixed by its operator leaves a group that has others
       through an Identity, which requantizes.
    3. Constants that are operands get a scale of their own, or their group's.
    4. Weights: per output channel, of the types that `weight_types` gives; biases at input scale * weight scale.
    5. Activations of the layers in settings.int16_layers are int16 with zero point 0, their biases int64; an Identity
       requantizes where neighbours have the other width.
    6. A model that came quantized (`given_quantization`) keeps its values' scales, and weights that lie on a grid
       the grid's.
    7. What joins unlike quantities in an output stays float: `joins.py`.
    8. Layers that stay in float for want of a kernel, LSTM and GRU, have int8 weights all the same.
    9. Unless integer_only, outputs whose fixed range does not hold them stay float, and so do probabilities
       at the end of the graph.

    Raises UnsupportedModelError when integer_only and a layer can't be int8, naming all of them, and
    InputError when float_layers or int16_layers have names that the model does not have, when a layer has no int16
    kernel, or integer_only and values are too large.
    """
    clone = model.clone()
    graph = clone.graph
    too_large = _too_large(graph, calibration.histograms)
    histograms = {name: h for name, h in calibration.histograms.items() if name not in too_large}
    if integer_only and too_large:
        raise InputError(
            f"{calibration.dataset.source}: values too large for int8 on this calibration data: "
            f"{', '.join(f'{name!r} ({size:.2g})' for name, size in too_large.items())}; check the data's scale "
            "(preprocess) and the model"
        )
    joins = unlike_joins(graph, histograms)
    for node in joins:
        set_joins_output(node)
    chosen = int8_nodes(graph, set(histograms), settings, joins, integer_only=integer_only)
    if integer_only:
        require_all(graph, chosen | joins)
    else:
        chosen -= beyond_fixed_range(graph, chosen, histograms)
        last = last_probabilities(graph, chosen)
        chosen -= last.keys()
        for node, q in last.items():  # for an emitter that is asked for int8 outputs
            set_quantization(node.outputs[0], q if node.outputs[0].is_graph_output() else None)
    wide = int16_nodes(graph, chosen, settings)
    for node in graph:
        set_activation_bits(node, (16 if node in wide else 8) if node in chosen else None)
    for separate in (separate_widths, _separate_fixed, _separate_states, separate_given):
        for requantize, source in separate(graph):
            chosen.add(requantize)
            made = str(requantize.outputs[0].name)
            histograms[made] = histograms.setdefault(str(source.name), histograms.get(made, Histogram()))
    groups = [layer for layer in layers(graph) if layer.node in chosen]
    _own_constants(graph, groups)
    floors = attention_masks.floors(graph, histograms) | _flat_below(graph)
    ranging = _Ranging(histograms, settings, calibration, floors)
    _assign_activations(groups, ranging)
    given = comes_quantized(graph)
    kinds = weight_types(graph, settings)
    for layer in groups:
        _assign_weights(layer, settings, kinds.get(layer.node, "int8"), given)
    store_weights(graph, settings)
    return clone


@dataclass(frozen=True)
class _Ranging:
    """What ranges are chosen by. floors: below which a value saturates unseen."""

    histograms: Histograms
    settings: Quantize
    calibration: Calibration
    floors: Mapping[ir.Value, float]

    def method(self, values: list[ir.Value]) -> str:
        """The method for the range of these values together."""
        if self.settings.calibration != "auto":
            return self.settings.calibration
        own = [m for v in values if (m := self.calibration.methods.get(str(v.name))) is not None]
        return own[0] if own else self.calibration.method


def _flat_below(graph: ir.Graph) -> dict[ir.Value, float]:
    """Below which values are alike to all functions that read them."""
    found: dict[ir.Value, float] = {}
    for value in (v for node in graph for v in node.outputs if v.uses() and not v.is_graph_output()):
        rules = [record_of(node).integer for node in value.consumers()]
        flat = min(-math.inf if rule is None else rule.flat_below for rule in rules)
        if flat > -math.inf:
            found[value] = flat
    return found


def _too_large(graph: ir.Graph, histograms: Histograms) -> dict[str, float]:
    """{name: largest magnitude} of the values that no scale can hold.

    The outputs of operators that tie scales are left out: their scale comes from their inputs, which bounds a mask's
    constant.
    """
    tied = [layer for layer in layers(graph) if operators.rule(layer) is not None and operators.ties(layer)]
    derived = {str(v.name) for layer in tied for v in operators.outputs(layer)}
    magnitudes = {name: max(-h.minimum, h.maximum) for name, h in histograms.items() if name not in derived}
    return {name: magnitude for name, magnitude in magnitudes.items() if magnitude > LARGEST}


def _separate_fixed(graph: ir.Graph) -> list[tuple[ir.Node, ir.Value]]:
    """Puts an Identity behind each output of fixed scale whose group has other values; returns pairs (Identity,
    source).
    """
    groups = [layer for layer in layers(graph) if is_integer(layer.node)]
    fixed = {v: q for layer in groups for v in operators.outputs(layer) if (q := operators.fixed(layer)) is not None}
    tied = [layer for layer in groups if operators.ties(layer)]
    inside = {v for layer in tied for v in operators.outputs(layer)}
    names, added = Names(graph), []
    for members in same_scales(tied).members().values():
        sources = [v for v in members if v not in inside]
        held = [v for v in sources if v in fixed]
        if not held or (len(held) == len(sources) and all(fixed[v].same_as(fixed[held[0]]) for v in held)):
            continue
        for value in held:
            uses = [(n, i) for n, i in value.uses() if any(n is layer.node for layer in tied)]
            requantize, producer = requantized(graph, value, names), value.producer()
            assert producer is not None
            set_activation_bits(requantize, activation_bits(producer))
            for node, index in uses:
                node.replace_input_with(index, requantize.outputs[0])
            added.append((requantize, value))
    return added


def _separate_states(graph: ir.Graph) -> list[tuple[ir.Node, ir.Value]]:
    """Puts an Identity in front of each output that is a state and whose scale is fixed: the state's may be another."""
    groups = [layer for layer in layers(graph) if is_integer(layer.node)]
    fixed = {v for layer in groups for v in operators.outputs(layer) if operators.fixed(layer) is not None}
    names, added = Names(graph), []
    for before, after in state_values(graph):
        readers = [layer for layer in groups if before in [v for _, v in operators.data_inputs(layer)]]
        if after not in fixed or not any(operators.ties(layer) for layer in readers):
            continue
        requantize, producer, name = requantized(graph, after, names), after.producer(), after.name
        assert producer is not None
        set_activation_bits(requantize, activation_bits(producer))
        for place, output in enumerate(graph.outputs):
            if output is after:
                graph.outputs[place] = requantize.outputs[0]
        after.name, requantize.outputs[0].name = names(f"{name}/exact"), name
        added.append((requantize, after))
    return added


def _own_constants(graph: ir.Graph, groups: list[Layer]) -> None:
    """Copies a constant that several nodes read for each int8 node, since their scales may differ."""
    names = Names(graph)
    for layer in groups:
        owned = {v for _, v in operators.data_inputs(layer)} | {operators.weight(layer), layer.bias}
        used = [(node, i, v) for node in layer.nodes for i, v in enumerate(node.inputs) if v in owned]
        for node, index, value in used:
            if value is None or constant(value) is None or len(value.uses()) == 1:
                continue
            name = names(f"{value.name}/{node.outputs[0].name}")
            copy = ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)
            graph.register_initializer(copy)
            node.replace_input_with(index, copy)


def _assign_activations(groups: list[Layer], ranging: _Ranging) -> None:
    tied = tied_values(groups)
    widths = _widths(groups, tied.members)
    moving = {layer.node for layer in tied.layers}
    for root, members in tied.members.items():
        bits = widths[root]
        chosen = tied.fixed.get(root) or (_given(tied, root, ranging) if bits == 8 else None)
        if chosen is None:
            low, high = _group_range(tied.sources(root), ranging, bits)
            read = [v for v in members if any(n not in moving for n in v.consumers())]
            unseen = min((ranging.floors.get(v, -np.inf) for v in read), default=-np.inf)
            chosen = quantize_range(max(low, unseen), high, bits)
        for value in members:
            set_quantization(value, chosen)


def _widths(groups: list[Layer], members_of: dict[ir.Value, list[ir.Value]]) -> dict[ir.Value, int]:
    """Bits of each group of values that share a scale: all of them are stored with as many, constants as their reader
    computes."""
    reader = {v: activation_bits(layer.node) or 8 for layer in groups for _, v in operators.data_inputs(layer)}
    return {
        root: max(reader[v] if constant(v) is not None else stored_bits(v) for v in values)
        for root, values in members_of.items()
    }


def _given(tied: Tied, root: ir.Value, ranging: _Ranging) -> Quantization | None:
    """The quantization that a group came with, wide enough for those of its values that came without."""
    members = tied.members[root]
    if all(given_quantization(v) is None for v in members):
        return None
    others = without_scale(tied, root)
    return given_range(members, _group_range(others, ranging, 8) if others else None)


def _group_range(sources: list[ir.Value], ranging: _Ranging, bits: int) -> ranges.Range:
    histograms = ranging.histograms
    constants = [array for v in sources if (array := constant(v)) is not None and array.size]
    computed = [v for v in sources if constant(v) is None]
    if not computed:
        return min(float(a.min()) for a in constants), max(float(a.max()) for a in constants)
    merged = histograms[str(computed[0].name)]
    for value in computed[1:]:
        merged = merged.merged(histograms[str(value.name)])
    if merged.total == 0:
        return 0.0, 0.0
    if _is_image(merged) and any(v.is_graph_input() for v in computed):
        return PIXEL_RANGE
    # 16 bits hold all values and more: there is nothing to weigh against saturation
    method = ranges.minmax if bits == 16 else ranges.METHODS[ranging.method(computed)]
    low, high = method(merged, ranging.settings)
    low, high = min(low, 0.0), max(high, 0.0)
    # Constants widen the range. A mask's "minus infinity" would take all of it, and saturates instead, far
    # enough out to vanish in a Softmax.
    room = max(high - low, attention_masks.DEPTH)
    floor, ceiling = low - room, high + room
    low = min([low, *(max(float(a.min()), floor) for a in constants)])
    high = max([high, *(min(float(a.max()), ceiling) for a in constants)])
    return low, high


def _is_image(histogram: Histogram) -> bool:
    """Whether all values are whole numbers from 0 to 255 that use the upper half; scale 1 then makes them exact."""
    return histogram.integral and histogram.minimum >= 0 and 127 < histogram.maximum <= PIXEL_RANGE[1]


def _assign_weights(layer: Layer, settings: Quantize, kind: WeightType, given: bool) -> None:
    value = operators.weight(layer)
    if value is None:
        return
    axis = operators.weight_axis(layer.node) if settings.per_channel else None
    source = quantization(layer.node.inputs[0])
    assert source is not None
    bias = constant(layer.bias)
    array = np.asarray(constant(value))
    kind = kind if array.any() else "int8"  # zeros alone have no sign
    weights = quantize_weight(array, axis, bias=bias, source=source, kind=kind)
    if kind == "int8":
        weights = keep_grid(array, weights) if given else weights
        weights = keep_clusters(value, weights)
    else:
        set_codebook(value, None)
        known = given_quantization(value)
        weights = weights if known is None or known.kind != kind else known
    set_quantization(value, weights)
    if layer.bias is not None:
        set_quantization(layer.bias, quantize_bias(weights, source))
