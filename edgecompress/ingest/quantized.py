"""Models that come quantized, or trained for it, with pairs of QuantizeLinear and DequantizeLinear between layers.

ONNX Runtime's quantization (QDQ) and torch's write such models, and quantization-aware models of TensorFlow Model
Optimization become such models in ONNX. Here they become float models again, whose values keep their scales and zero
points as annotations. Constant folding makes the weights float; they stay on the grid of their integers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgecompress.graph.annotations import Quantization, given_quantization, set_given_quantization
from edgecompress.graph.fusion import constant, layers
from edgecompress.ingest.passes.edit import Edit, static_shape

STORED = {"uint8": 128, "int8": 0}  # subtracted from a zero point to make it that of int8
POSITIVE = frozenset({"HardSigmoid", "Relu", "Sigmoid", "Softmax"})
POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean"})
MOVES = frozenset({
    "Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
})  # fmt: skip


def take_out(model: ir.Model) -> dict[str, Quantization] | None:
    """Removes QuantizeLinear and DequantizeLinear of computed values, in place.

    Returns {value name: its int8 quantization, per tensor}. Returns None and leaves the model as it was when there are
    no such nodes, when their scales are not constant, or when something between them computes on integers.
    """
    if not any(node.op_type == "QuantizeLinear" for node in model.graph):
        return None
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    pairs, integers = _pairs(model.graph)
    edit, found, positive = Edit(model.graph), dict[ir.Value, Quantization | None](), set[ir.Value]()
    for value in integers:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in pairs:
        source = node.inputs[0]
        assert source is not None
        if node.op_type == "QuantizeLinear":
            if _is_positive(node):
                if _may_be_negative(source, positive):
                    # An activation that was left out, because the integers' range has the same effect.
                    source = edit.insert(node, "Relu", [source], stem=f"{source.name}/Relu", shape=static_shape(source))
                positive.add(source)
            made = _quantization(node)
            known = found.setdefault(source, made)
            if known is not None and not known.same_as(made):
                found[source] = None  # read in two ways
        edit.substitute(node, source)
    return {str(value.name): made for value, made in found.items() if made is not None} if pairs else None


def keep(model: ir.Model, given: dict[str, Quantization]) -> list[str]:
    """Annotates the canonical model's values, in place, with what `take_out` returned. Returns notes for the user."""
    values = {str(v.name): v for v in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs))}
    kept = [name for name in given if name in values]
    for name in kept:
        set_given_quantization(values[name], given[name])
    for layer in layers(model.graph):
        # What is in front of a layer's activation never exists on a device: the activation keeps to its grid.
        inner = given_quantization((layer.bias_add or layer.node).outputs[0])
        if inner is not None and layer.activation is not None and given_quantization(layer.output) is None:
            set_given_quantization(layer.output, inner)
    if not given:
        return ["the model came quantized, but not as int8 with one scale per value, so it is calibrated again"]
    lost = f"; {len(given) - len(kept)} belonged to values that no longer exist" if len(kept) < len(given) else ""
    return [f"the model came quantized: {len(kept)} values keep their scales in int8{lost}"]


def _may_be_negative(value: ir.Value, positive: set[ir.Value]) -> bool:
    """Whether the value can be below zero. Inputs of the model can't: whoever quantized the model said so."""
    node = value.producer()
    if node is None or value in positive or node.op_type in POSITIVE:
        return False
    if node.op_type in MOVES | POOLS:
        return any(v is not None and constant(v) is None and _may_be_negative(v, positive) for v in node.inputs)
    return True


def _pairs(graph: ir.Graph) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes of both operators between layers, in order, and the integer values between them.

    Both lists are empty when anything but a move reads those integers, or when they are read with another scale.
    """
    pairs: list[ir.Node] = []
    made_by: dict[ir.Value, ir.Node] = {}  # integers, and the QuantizeLinear that they come from
    for node in graph:
        makers = [made_by[v] for v in node.inputs if v in made_by]
        if node.op_type == "QuantizeLinear" and not node.domain and constant(node.inputs[0]) is None:
            if _scale(node) is None:
                return [], []
            pairs.append(node)
            made_by[node.outputs[0]] = node
        elif node.op_type == "DequantizeLinear" and makers and _scales_are_equal(node, makers[0]):
            pairs.append(node)
        elif makers and node.op_type in MOVES and all(_scales_are_equal(m, makers[0]) for m in makers):
            made_by |= dict.fromkeys(node.outputs, makers[0])
        elif makers:
            return [], []
    if any(v.is_graph_output() for v in made_by):
        return [], []
    return pairs, list(made_by)


def _scales_are_equal(node: ir.Node, other: ir.Node) -> bool:
    scale, wanted = _scale(node), _scale(other)
    same = scale is not None and np.array_equal(scale, np.asarray(wanted))
    return same and np.array_equal(_zero_point(node), _zero_point(other))


def _scale(node: ir.Node) -> np.ndarray | None:
    """The constant scale of either operator; None when its scale or its zero point is computed."""
    known = [v is None or constant(v) is not None for v in node.inputs[1:]]
    return constant(node.inputs[1]) if all(known) else None


def _zero_point(node: ir.Node) -> np.ndarray:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is not None:
        return np.asarray(constant(value))
    dtype = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    return np.zeros((), dtype.numpy())


def _is_positive(node: ir.Node) -> bool:
    """Whether the QuantizeLinear has no integers for negative numbers."""
    zero = _zero_point(node)
    return zero.dtype.kind in "iu" and bool((zero == np.iinfo(zero.dtype).min).all())


def _quantization(node: ir.Node) -> Quantization | None:
    """The node's scale and zero point for int8; None unless they are those of int8 or uint8 per tensor."""
    scale, zero = _scale(node), _zero_point(node)
    assert scale is not None
    if scale.size != 1 or zero.dtype.name not in STORED or not np.isfinite(scale).all() or scale.max() <= 0:
        return None
    zero_point = zero.astype(np.int32).reshape(1) - STORED[zero.dtype.name]
    return Quantization(np.asarray(scale, np.float32).reshape(1), zero_point)
