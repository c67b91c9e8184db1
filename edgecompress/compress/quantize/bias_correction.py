"""Takes the mean error of quantisation out of each layer's output by changing its bias.

M. Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.2, in its empirical form (appendix D): E[quantised - float] of each output channel, before the
activation, over calibration data, layer after layer, each seeing its predecessors corrected.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.batch import Arrays, Runner
from edgecompress.compress.quantize.simulate import EXACT, simulation
from edgecompress.graph.annotations import is_int8
from edgecompress.graph.fusion import Layer, layers

FLOAT = "float/"  # prefix of the names of the float model's values inside the joint model


@dataclass(frozen=True)
class BiasCorrection:
    """What correcting did to the signal-to-noise ratio of the model's outputs (dB), and whether it stayed."""

    kept: bool
    snr_before: float
    snr_after: float
    layers: int


def correct_bias(reference: ir.Model, quantized: ir.Model, inputs: Arrays, *, whole: bool) -> ir.Model:
    """A clone of `quantized` with corrected biases. `inputs`: {name: [n, ...]}, the data that means are over.

    reference: the float model that `quantized` was annotated from (same names, same weights).
    whole: whether the model takes all n samples in one call; otherwise means are taken sample by sample.
    """
    joint, shifts = _joint_model(reference, quantized)
    if not shifts:
        return quantized
    measured = Runner(joint, list(shifts.values()), whole=whole)(inputs)
    corrected = quantized.clone()
    for layer in layers(corrected.graph):
        name = shifts.get(layer.output.name)
        if name is None:
            continue
        shift = measured[name].reshape(-1, layer.bias.const_value.numpy().size).mean(axis=0)
        bias = (layer.bias.const_value.numpy() - shift).astype(np.float32)
        layer.bias.const_value = ir.tensor(bias, name=layer.bias.name)
    return corrected


def _joint_model(reference: ir.Model, quantized: ir.Model) -> tuple[ir.Model, dict[str, str]]:
    """Float and simulated model in one, with each layer's mean shift computed and subtracted on the way.

    Returns the model and {name of the layer's output: name of its mean shift}.
    """
    joint = simulation(quantized)
    graph = joint.graph
    before = {layer.output.name: _linear_output(layer) for layer in _correctable(quantized)}
    exact = _add_float_model(graph, reference)
    values = {v.name: v for node in graph for v in node.outputs}
    shifts = {}
    for output, (linear, axis) in before.items():
        value = values.get(f"{linear}{EXACT}", values[linear])
        shifts[output] = _subtract_mean_shift(graph, value, exact[linear], axis)
    return joint, shifts


def _correctable(model: ir.Model) -> list[Layer]:
    return [x for x in layers(model.graph) if is_int8(x.node) and operators.weight(x) is not None and x.bias is not None]


def _linear_output(layer: Layer) -> tuple[str, int]:
    """Name of the value before the activation, and its channel axis."""
    value = (layer.bias_add or layer.node).outputs[0]
    axis = value.shape.rank() - 1 if layer.node.op_type == "MatMul" else 1
    return value.name, axis


def _add_float_model(graph: ir.Graph, reference: ir.Model) -> dict[str, ir.Value]:
    """Move the nodes of a clone of `reference` to the front of `graph`; returns its values by name."""
    model = reference.clone()
    inputs = {v.name: v for v in graph.inputs}
    for value in model.graph.inputs:
        value.replace_all_uses_with(inputs[value.name])
    nodes = list(model.graph)
    named = {v.name: v for node in nodes for v in node.outputs}
    constants = list(model.graph.initializers.values())
    model.graph.outputs.clear()
    model.graph.initializers.clear()
    for node in nodes:
        model.graph.remove(node)
        node.name = f"{FLOAT}{node.name}"
    for name, value in (*named.items(), *((v.name, v) for v in constants)):
        value.name = f"{FLOAT}{name}"
    for value in constants:
        graph.register_initializer(value)
    graph.insert_before(graph[0], nodes)
    return named


def _subtract_mean_shift(graph: ir.Graph, found: ir.Value, exact: ir.Value, axis: int) -> str:
    rank = exact.shape.rank()
    uses = list(found.uses())
    axes = ir.Value(
        name=f"{found.name}/shift_axes",
        const_value=ir.tensor(np.array([i for i in range(rank) if i != axis], np.int64)),
    )
    graph.register_initializer(axes)
    error = ir.node("Sub", [found, exact])
    mean = ir.node("ReduceMean", [error.outputs[0], axes], attributes={"keepdims": 1})
    corrected = ir.node("Sub", [found, mean.outputs[0]])
    for node, name in ((error, "error"), (mean, "shift"), (corrected, "corrected")):
        node.outputs[0].name = f"{found.name}/{name}"
    graph.insert_after(found.producer(), [error, mean, corrected])
    for node, index in uses:
        node.replace_input_with(index, corrected.outputs[0])
    return mean.outputs[0].name
