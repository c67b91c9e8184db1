"""Stores only weights in 8 or 16 bits; activations stay float, so no data is needed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.weight_scales import keep_clusters, quantize_weight
from edgecompress.graph.annotations import Quantization, is_integer, set_activation_bits, set_quantization
from edgecompress.graph.fusion import constant, layers
from edgecompress.operators import record_of
from edgecompress.recipe import Quantize

LARGEST_HALF = float(np.finfo(np.float16).max)


def quantize_dynamic(model: ir.Model, settings: Quantize) -> ir.Model:
    """A clone with int8 weights (dynamic range): per channel for convolutions, else per tensor.

    Layers named in settings.float_layers keep float weights.
    """
    clone = model.clone()
    for node, weight in _weights(clone):
        if _stays(node, settings):
            continue
        # Fully connected layers can't: tflite-runtime 2.14 is silently wrong per channel.
        per_channel = settings.per_channel and record_of(node).layout == "channels"
        axis = operators.weight_axis(node) if per_channel else None
        set_quantization(weight, keep_clusters(weight, quantize_weight(np.asarray(constant(weight)), axis)))
    store_weights(clone.graph, settings)
    return clone


def store_weights(graph: ir.Graph, settings: Quantize) -> None:
    """The matrices of layers without an integer kernel become int8, in place; the layers compute in float."""
    for node in graph:
        if is_integer(node) or _stays(node, settings):
            continue
        for value in operators.stored(node):
            set_quantization(value, keep_clusters(value, quantize_weight(np.asarray(constant(value)), None)))


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
