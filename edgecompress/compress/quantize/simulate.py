"""A float model that rounds where the quantised one does: for measuring, not for shipping."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import INTEGER_RANGE, Quantization, is_int8, quantization

FLOAT = "float/"  # prefix of the names of the float model's values beside the simulated ones
EXACT = "/exact"  # suffix of the name that a value has before it is rounded


def simulation(model: ir.Model) -> ir.Model:
    """Annotated model -> float model with the same value names and the quantised model's results.

    Constants hold what their integers stand for. A value stored as int8 is rounded where it is made, and its
    name is that of the rounded value; a float value is rounded on its way to int8 layers only. Differs from
    an integer runtime by that one's rounding of multipliers, a step at most for each layer.
    """
    return simulate(model)[0]


def simulate(model: ir.Model) -> tuple[ir.Model, dict[str, ir.Value]]:
    """`simulation`, and for each value that gets rounded, by name, the rounded one in it."""
    clone = model.clone()
    graph = clone.graph
    for value in list(graph.initializers.values()):
        if (q := quantization(value)) is not None:
            array = q.dequantize(q.quantize(value.const_value.numpy()))
            value.const_value = ir.tensor(array, name=value.name)
    rounded_values = {}
    for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
        if (q := quantization(value)) is None:
            continue
        producer, uses = value.producer(), list(value.uses())
        stored = producer is None or is_int8(producer)
        rounded = rounded_values[str(value.name)] = round_trip(graph, value, q)
        for node, index in uses:
            if stored or is_int8(node):
                node.replace_input_with(index, rounded)
        if producer is not None and stored:
            for index, output in enumerate(graph.outputs):
                if output is value:
                    graph.outputs[index] = rounded
            value.name, rounded.name = f"{value.name}{EXACT}", value.name
    return clone, rounded_values


def prepend_float(graph: ir.Graph, reference: ir.Model) -> dict[str, ir.Value]:
    """Put the float model's nodes in front of a simulated one's, on the same inputs, so that both run at once.

    Returns the float model's computed values and inputs by their names in `reference`; in the joint graph
    computed ones and constants are renamed.
    """
    model = reference.clone()
    inputs = {str(v.name): v for v in graph.inputs}
    for value in model.graph.inputs:
        value.replace_all_uses_with(inputs[str(value.name)])
    nodes, constants = list(model.graph), list(model.graph.initializers.values())
    computed = {str(v.name): v for node in nodes for v in node.outputs}
    model.graph.outputs.clear()
    model.graph.initializers.clear()
    for node in nodes:
        model.graph.remove(node)
        node.name = f"{FLOAT}{node.name}"
    for value in (*computed.values(), *constants):
        value.name = f"{FLOAT}{value.name}"
    for value in constants:
        graph.register_initializer(value)
    graph.insert_before(graph[0], nodes)
    return inputs | computed


def round_trip(graph: ir.Graph, value: ir.Value, q: Quantization) -> ir.Value:
    """Insert nodes behind a value that quantise and dequantise it; returns the rounded value.

    Written out, scale * clip(round(x / scale)), for ONNX Runtime would fuse QuantizeLinear and
    DequantizeLinear into integer kernels, which not all operators get with all attributes.
    """
    low, high = (float(end) - float(q.zero_point[0]) for end in INTEGER_RANGE[q.dtype])
    scale, low_value, high_value = (
        _constant(graph, f"{value.name}/{part}", np.float32(number))
        for part, number in (("scale", q.scale[0]), ("low", low), ("high", high))
    )
    scaled = ir.node("Div", [value, scale])
    whole = ir.node("Round", scaled.outputs)
    clipped = ir.node("Clip", [whole.outputs[0], low_value, high_value])
    widened = ir.node("Mul", [clipped.outputs[0], scale])
    for node, part in ((scaled, "scaled"), (whole, "whole"), (clipped, "clipped"), (widened, "rounded")):
        node.outputs[0].name = f"{value.name}/{part}"
    rounded = widened.outputs[0]
    rounded.shape, rounded.type = value.shape, value.type
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [scaled, whole, clipped, widened])
    else:
        graph.insert_after(producer, [scaled, whole, clipped, widened])
    return rounded


def _constant(graph: ir.Graph, name: str, number: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.asarray(number), name=name))
    graph.register_initializer(value)
    return value
