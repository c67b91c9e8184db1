"""Stores only weights in 4, 8 or 16 bits; activations stay float, so no data is needed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.int4_blocks import Blocks, quantize_blocks
from edgecompress.compress.quantize.weight_scales import keep_clusters, quantize_weight
from edgecompress.errors import InputError
from edgecompress.graph.annotations import Quantization, codebook, is_integer, set_activation_bits, set_quantization
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.operators import record_of
from edgecompress.recipe import Quantize

LARGEST_HALF = float(np.finfo(np.float16).max)


def quantize_dynamic(
    model: ir.Model, settings: Quantize, choice: Mapping[str, Blocks | None] | None = None
) -> ir.Model:
    """A clone with int8 weights (dynamic range), with a scale for each output channel, or each row of a table, or with
    int4 weights in blocks.

    Layers named in settings.float_layers keep float weights. choice: by the name of a weight, how its int4 blocks are,
    or None for int8; unset: as the settings say.
    """
    clone = model.clone()
    for node, weight in _weights(clone):
        if _stays(node, settings):
            continue
        axis = operators.weight_axis(node) if settings.per_channel else None
        set_quantization(weight, keep_clusters(weight, quantize_weight(np.asarray(constant(weight)), axis)))
    store_weights(clone.graph, settings)
    if choice is None:
        choice = {str(value.name): blocks_of(settings) for value in int4_weights(clone.graph, settings)}
    for value, axis in can_be_int4(clone.graph).items():
        if (blocks := choice.get(str(value.name))) is not None:
            set_quantization(value, quantize_blocks(np.asarray(constant(value)), axis, blocks))
    return clone


def blocks_of(settings: Quantize) -> Blocks:
    """How int4 weights beside float activations are grouped."""
    size = 32 if settings.int4_block is None else settings.int4_block
    return Blocks(None if size == "channel" else size, settings.int4_zero_points)


def int4_weights(graph: ir.Graph, settings: Quantize) -> list[ir.Value]:
    """The matrices and tables that are to be int4 beside float activations.

    Raises InputError where a node that settings.layer_weights names has no weights, or is to be int4 and has no matrix
    and no table, and where nothing can be int4 that is to be.
    """
    able, named = can_be_int4(graph), named_weights(graph, settings)
    unused = set(settings.layer_weights)
    for layer in layers(graph):
        weights = [v for v in layer.node.inputs if v is not None and v in able]
        has_int8 = operators.weight(layer) is not None
        unused -= {n for n in _names(layer) if weights or (has_int8 and settings.layer_weights.get(n) == "int8")}
    if unused:
        listed = ", ".join(map(repr, sorted(unused)))
        raise InputError(
            "quantize.layer_weights: these nodes have no matrices or tables that can be int4 beside float "
            f"activations: {listed}; remove them"
        )
    if settings.weights == "int4" and not able:
        raise InputError(
            'quantize.weights = "int4" needs int8 activations beside it: give calibration data (--calib). Beside float '
            "activations matrices and tables of embeddings can be int4, of which the model has none"
        )
    return [value for value in able if named.get(value, settings.weights) == "int4"]


def named_weights(graph: ir.Graph, settings: Quantize) -> dict[ir.Value, str]:
    """What settings.layer_weights say of weights that can be int4 beside float activations, and "float32" for those of
    settings.float_layers."""
    found = dict[ir.Value, str]()
    for layer in layers(graph):
        kinds: list[str] = [settings.layer_weights[n] for n in _names(layer) if n in settings.layer_weights]
        kinds = ["float32"] if _stays(layer.node, settings) else kinds
        found |= {v: kinds[0] for v in layer.node.inputs if v is not None and kinds}
    return found


def _names(layer: Layer) -> set[str]:
    """Of the layer's nodes, and of what they make."""
    return {str(n) for node in layer.nodes for n in (node.name, *(v.name for v in node.outputs))}


def can_be_int4(graph: ir.Graph) -> dict[ir.Value, int]:
    """Constants that only products, as matrices, or only float nodes that pick rows read, with the axis of channels."""
    found = dict[ir.Value, int]()
    for value in graph.initializers.values():
        array, uses = constant(value), list(value.uses())
        if array is None or array.ndim != 2 or not uses or codebook(value) is not None or value.is_graph_output():
            continue
        kinds = {(use.node.op_type, use.idx) for use in uses}
        if kinds in ({("MatMul", 1)}, {("Gemm", 1)}):
            found[value] = 0 if ("Gemm", 1) in kinds else 1
        elif kinds == {("Gather", 0)} and all(value in operators.stored(use.node) for use in uses):
            found[value] = 0
    return found


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
