"""A float model that rounds where the quantised one does: for measuring, not for shipping."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization, is_int8, quantization

EXACT = "/exact"  # suffix of the name that a value has before it is rounded


def simulation(model: ir.Model) -> ir.Model:
    """Annotated model -> float model with the same value names and the quantised model's results.

    Constants hold what their integers stand for. A value stored as int8 passes through QuantizeLinear and
    DequantizeLinear, and its name is that of the rounded value; a float value is rounded on its way to int8
    layers only. Differs from an integer runtime by that one's rounding of multipliers, a step at most for
    each layer.
    """
    clone = model.clone()
    graph = clone.graph
    for value in list(graph.initializers.values()):
        if (q := quantization(value)) is not None:
            array = q.dequantize(q.quantize(value.const_value.numpy()))
            value.const_value = ir.tensor(array, name=value.name)
    for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
        if (q := quantization(value)) is None:
            continue
        producer, uses = value.producer(), list(value.uses())
        stored = producer is None or is_int8(producer)
        rounded = round_trip(graph, value, q)
        for node, index in uses:
            if stored or is_int8(node):
                node.replace_input_with(index, rounded)
        if producer is not None and stored:
            for index, output in enumerate(graph.outputs):
                if output is value:
                    graph.outputs[index] = rounded
            value.name, rounded.name = f"{value.name}{EXACT}", value.name
    return clone


def round_trip(graph: ir.Graph, value: ir.Value, q: Quantization) -> ir.Value:
    """Insert QuantizeLinear and DequantizeLinear behind a value; returns the rounded value."""
    parameters = [
        _constant(graph, f"{value.name}/scale", q.scale[0]),
        _constant(graph, f"{value.name}/zero_point", q.zero_point[0].astype(np.int8)),
    ]
    quantize = ir.node("QuantizeLinear", [value, *parameters])
    quantize.outputs[0].name = f"{value.name}/stored"
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters])
    rounded = dequantize.outputs[0]
    rounded.name, rounded.shape, rounded.type = f"{value.name}/rounded", value.shape, value.type
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    return rounded


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
    graph.register_initializer(value)
    return value
