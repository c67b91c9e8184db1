"""What each layer needs to compute on int8, according to the records of `operators`."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.annotations import Quantization, activation_bits, only_in_onnx
from edgecompress.graph.fusion import Layer, constant
from edgecompress.graph.gate_products import Product, product_of
from edgecompress.operators import OPERATORS, record_of
from edgecompress.operators.record import SAME, Integer

RULES: dict[str, Integer] = {name: record.int8 for name, record in OPERATORS.items() if record.int8 is not None}


def rule(layer: Layer) -> Integer | None:
    """The rule of the layer's main operator, or None when some node of the layer has no int8 kernel."""
    for node in layer.nodes:
        if node.op_type not in RULES or only_in_onnx(node) or not RULES[node.op_type].accepts(node):
            return None
    return RULES[layer.node.op_type]


def fixed(layer: Layer) -> Quantization | None:
    """The quantization that the operator of an integer layer fixes for its output."""
    return RULES[layer.node.op_type].fixed_at(activation_bits(layer.node) or 8)


def ties(layer: Layer) -> bool:
    """Whether the layer's data inputs and outputs must have equal scales, but for a gate (`tied_inputs`)."""
    entry = RULES[layer.node.op_type]
    return (entry.output == SAME and not entry.frees(layer.node)) or _gated(layer) is not None


def tied_inputs(layer: Layer) -> list[ir.Value]:
    """The data inputs of a layer that ties whose scales are its output's: a product by zeros and ones has the scale of
    what it multiplies, so that kernels may leave it out."""
    product = _gated(layer)
    return [v for _, v in data_inputs(layer)] if product is None else [product.image]


def _gated(layer: Layer) -> Product | None:
    return None if layer.activation is not None else product_of(layer.node)


def weight(layer: Layer) -> ir.Value | None:
    """The constant with int8 weights, per channel or not; None for operators without."""
    entry = RULES.get(layer.node.op_type)
    if entry is None or entry.weight is None or only_in_onnx(layer.node):
        return None
    value = layer.node.inputs[entry.weight]
    array = constant(value)
    # A batch of constant matrices has no single output channel: it is an operand like any other.
    return None if array is None or (layer.node.op_type == "MatMul" and array.ndim != 2) else value


def stored(node: ir.Node) -> list[ir.Value]:
    """The constants that the node may have as int8 while it computes in float."""
    weights = record_of(node).weights
    places = weights.stored if weights.stores(node) else ()
    values = [node.inputs[place] for place in places if place < len(node.inputs)]
    return [value for value in values if constant(value) is not None and value is not None]


def weight_axis(node: ir.Node) -> int | None:
    """The axis of the weight that scales may run along; None when only one scale for all is possible."""
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return None  # [in, out / group, ...]: no axis has the output channels
    return RULES[node.op_type].weight_axis


def data_inputs(layer: Layer) -> list[tuple[int, ir.Value]]:
    """(index, value) of the inputs of the main node that are int8 activations or int8 operands."""
    entry = RULES[layer.node.op_type]
    weights = weight(layer)
    indices = range(len(layer.node.inputs)) if entry.data is None else entry.data
    found = [(i, layer.node.inputs[i]) for i in indices if i < len(layer.node.inputs)]
    return [(i, v) for i, v in found if v is not None and v is not weights]


def outputs(layer: Layer) -> list[ir.Value]:
    """Float outputs of the layer as it runs on the device."""
    return [v for v in layer.last.outputs if v.dtype == ir.DataType.FLOAT]
