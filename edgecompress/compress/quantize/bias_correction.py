"""Takes the mean error of quantization out of each layer's output by changing its bias.

M. Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.2, in its empirical form (appendix D): E[quantized - float] of each output channel, before the
activation, over calibration data, layer after layer, each seeing its predecessors corrected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.batch import Arrays, Runner
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.noise import (
    WORTH_DB,
    judging_batch,
    judging_batches,
    measured_outputs,
    output_snr_db,
)
from edgecompress.compress.quantize.simulate import Simulation
from edgecompress.graph.annotations import is_integer
from edgecompress.graph.fusion import Layer, layers


@dataclass(frozen=True)
class BiasCorrection:
    """The signal-to-noise ratio (dB) of the quantized model's outputs without and with corrected biases.

    kept: whether the corrected biases stayed. layers: how many layers have a bias to correct; both ratios are None when
    there is none.
    """

    kept: bool
    snr_before: float | None
    snr_after: float | None
    layers: int

    def __str__(self) -> str:
        if not self.layers:
            return "no layer with a bias"
        measured = f"{self.layers} layers, {self.snr_before:.1f} dB before, {self.snr_after:.1f} dB after"
        return f"{measured}: {'kept' if self.kept else 'not kept'}"


def correct_bias(reference: ir.Model, quantized: ir.Model, calibration: Calibration) -> tuple[ir.Model, BiasCorrection]:
    """The quantized model with corrected biases if that brings it nearer to the float model, else unchanged.

    reference: the float model that `quantized` was annotated from, with the same names and weights. Means are taken
    over one batch of the calibration data and judged on another.
    """
    fit, judge = judging_batches(calibration.dataset, reference)
    corrected, count = without_mean_shift(reference, quantized, fit)
    if not count:
        return quantized, BiasCorrection(False, None, None, 0)
    outputs = calibration.known(reference, measured_outputs(reference), judging_batch(calibration.dataset, reference))
    before, after = (output_snr_db(reference, m, judge, outputs) for m in (quantized, corrected))
    kept = after > before + WORTH_DB
    return corrected if kept else quantized, BiasCorrection(kept, before, after, count)


def without_mean_shift(reference: ir.Model, quantized: ir.Model, inputs: Arrays) -> tuple[ir.Model, int]:
    """A clone of `quantized` with corrected biases, and the number of layers that they belong to.

    inputs: {name: [n, *sample]}, the samples that means are taken over. In a model that can't take them all in one call
    each sample is corrected on its own, and the mean of the samples' shifts counts.
    """
    joint, shifts = _joint_model(reference, quantized)
    if not shifts:
        return quantized, 0
    samples = len(next(iter(inputs.values())))
    whole = Runner(reference, [str(v.name) for v in reference.graph.outputs], samples).takes_all(inputs)
    measured = Runner(joint, list(shifts.values()), samples, whole=whole, few=True)(inputs)
    corrected = quantized.clone()
    for layer in layers(corrected.graph):
        name, bias = shifts.get(str(layer.output.name)), layer.bias
        if name is None or bias is None or bias.const_value is None:
            continue
        array = bias.const_value.numpy()
        shift = measured[name].reshape(-1, array.size).mean(axis=0)
        bias.const_value = ir.tensor((array - shift).astype(np.float32), name=bias.name)
    return corrected, len(shifts)


def _joint_model(reference: ir.Model, quantized: ir.Model) -> tuple[ir.Model, dict[str, str]]:
    """Float and simulated model in one, with each layer's mean shift computed and subtracted on the way.

    Returns the model and {name of the layer's output: name of its mean shift}.
    """
    joint = Simulation(quantized)
    exact = joint.add_float_model(reference)
    computed = {str(v.name): v for node in joint.graph for v in node.outputs}
    shifts = {}
    for layer in layers(quantized.graph):
        if not is_integer(layer.node) or operators.weight(layer) is None or layer.bias is None:
            continue
        name = str((layer.bias_add or layer.node).outputs[0].name)  # before the activation
        found = joint.roundings[name].exact if name in joint.roundings else computed[name]
        shifts[str(layer.output.name)] = _subtract_mean_shift(joint, found, exact[name], _channel_axis(layer))
    return joint.model, shifts


def _channel_axis(layer: Layer) -> int:
    shape = layer.output.shape
    assert shape is not None
    return shape.rank() - 1 if layer.node.op_type == "MatMul" else 1


def _subtract_mean_shift(joint: Simulation, found: ir.Value, exact: ir.Value, axis: int) -> str:
    """Inserts found - mean(found - exact) for the readers of `found`; returns the name of the mean."""
    assert exact.shape is not None
    uses = list(found.uses())
    others = joint.constant("axes", np.array([i for i in range(exact.shape.rank()) if i != axis], np.int64))
    error = joint.node("Sub", [found, exact])
    mean = joint.node("ReduceMean", [error.outputs[0], others], keepdims=1)
    corrected = joint.node("Sub", [found, mean.outputs[0]])
    joint.insert(found, [error, mean, corrected])
    for node, index in uses:
        node.replace_input_with(index, corrected.outputs[0])
    return str(mean.outputs[0].name)
