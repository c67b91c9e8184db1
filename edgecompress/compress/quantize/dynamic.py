"""Stores only weights in 8 or 16 bits; activations stay float, so no data is needed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.weight_scales import keep_clusters, quantize_weight
from edgecompress.graph.annotations import Quantization, is_integer, set_activation_bits, set_quantization
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.operators import record_of
from edgecompress.recipe import Quantize

LARGEST_HALF = float(np.finfo(np.float16).max)


def quantize_dynamic(model: ir.Model, settings: Quantize) -> ir.Model:
    """A clone with int8 weights (dynamic range), with a scale for each output channel, or each row of a table.

    Layers named in settings.float_layers keep float weights.
    """
    clone = model.clone()
    for node, weight in _weights(clone):
        if _stays(node, settings):
            continue
        axis = operators.weight_axis(node) if settings.per_channel else None
        set_quantization(weight, keep_clusters(weight, quantize_weight(np.asarray(constant(weight)), axis)))
    store_weights(clone.graph, settings)
    return clone


def store_weights(graph: ir.Graph, settings: Quantize) -> None:
    """The matrices and tables of nodes that compute in float become int8, in place, as far as their records say, and
    those of settings.dynamic_layers."""
    for layer in layers(graph):
        names = {n for node in layer.nodes for n in (node.name, *(v.name for v in node.outputs))}
        value = operators.weight(layer)
        if value is not None and not is_integer(layer.node) and not names.isdisjoint(settings.dynamic_layers):
            axis = operators.weight_axis(layer.node) if settings.per_channel else None
            set_quantization(value, keep_clusters(value, quantize_weight(np.asarray(constant(value)), axis)))
    for node in graph:
        if is_integer(node) or _stays(node, settings):
            continue
        axis = record_of(node).weights.stored_axis if settings.per_channel else None
        for value in operators.stored(node):
            set_quantization(value, keep_clusters(value, quantize_weight(np.asarray(constant(value)), axis)))


def can_be_dynamic(layer: Layer) -> bool:
    """Whether the layer multiplies by a matrix that runtimes take as int8 beside float activations at no cost: MatMul
    and Gemm, but not convolutions."""
    return operators.weight(layer) is not None and record_of(layer.node).layout != "channels"


def _stays(node: ir.Node, settings: Quantize) -> bool:
    return bool({node.name, node.outputs[0].name}.intersection(settings.float_layers))


def to_float16(model: ir.Model) -> ir.Model:
    """A clone whose weights are stored as float16, except those with values that float16 can't hold."""
    clone = model.clone()
    for _, weight in _weights(clone):
        if np.abs(np.asarray(constant(weight))).max(initial=0.0) <= LARGEST_HALF:
            one, zero = np.ones(1, np.float32), np.zeros(1, np.int32)
            set_quantization(weight, Quantization(one, zero, None, ir.DataType.FLOAT16))
    return clone


def _weights(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """(node, weight) of every layer with constant weights. Marks all nodes float."""
    for node in model.graph:
        set_activation_bits(node, None)
    found = [(layer.node, operators.weight(layer)) for layer in layers(model.graph)]
    return [(node, value) for node, value in found if value is not None]
