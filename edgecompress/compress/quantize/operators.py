"""What each operator needs when it computes on int8: one table for the quantiser.

The constraints are those of the TFLite 8-bit quantisation specification
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization
from edgecompress.graph.fusion import Layer, constant

FREE, SAME, FIXED = "free", "same parameters", "fixed output"


def _always(node: ir.Node) -> bool:
    return True


def _never(node: ir.Node) -> bool:
    return False


@dataclass(frozen=True)
class Rule:
    """How one operator takes int8.

    output: FREE (own scale), SAME (one scale for the data inputs and all outputs) or FIXED (`fixed`).
    data: indices of the inputs that are real numbers to quantise; None means all.
    weight: index of the input with int8 weights, when constant; weight_axis: its output-channel axis.
    passive: moves numbers and computes nothing, so alone between float operators it stays float.
    accepts: whether this very node has an int8 kernel. frees: whether its output is FREE all the same.
    """

    output: str = FREE
    data: tuple[int, ...] | None = (0,)
    fixed: Quantization | None = None
    weight: int | None = None
    weight_axis: int = 0
    passive: bool = False
    accepts: Callable[[ir.Node], bool] = _always
    frees: Callable[[ir.Node], bool] = _never


def _fixed(scale: float, zero_point: int) -> Rule:
    return Rule(FIXED, fixed=Quantization(np.array([scale], np.float32), np.array([zero_point], np.int32)))


def _has_constant(index: int) -> Callable[[ir.Node], bool]:
    return lambda node: constant(node.inputs[index]) is not None


def _one_output(node: ir.Node) -> bool:
    return len(node.outputs) == 1


def _averages_all(node: ir.Node) -> bool:
    """An AveragePool over the whole image is a mean, and a mean rescales. Its values spread so much less
    than its inputs that sharing their scale would cost several bits."""
    size = node.inputs[0].shape if node.inputs[0] is not None else None
    if size is None:
        return False
    kernel, pads = node.attributes.get_ints("kernel_shape", ()), node.attributes.get_ints("pads", ())
    return tuple(kernel) == tuple(size[2:]) and not any(pads)


MOVE = Rule(SAME, passive=True)
RULES: dict[str, Rule] = {
    "Conv": Rule(weight=1, accepts=_has_constant(1)),
    "ConvTranspose": Rule(weight=1, weight_axis=1, accepts=_has_constant(1)),
    "Gemm": Rule(weight=1, accepts=_has_constant(1)),
    "MatMul": Rule(data=None, weight=1, weight_axis=1),
    **dict.fromkeys(("Add", "Sub", "Mul"), Rule(data=None)),
    **dict.fromkeys(("Min", "Max"), Rule(SAME, data=None, accepts=lambda node: len(node.inputs) == 2)),
    **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "Elu", "HardSwish", "Gelu", "Exp", "Abs"), Rule()),
    "PRelu": Rule(data=(0, 1), accepts=_has_constant(1)),
    **dict.fromkeys(("Sigmoid", "Softmax"), _fixed(1 / 256, -128)),
    "Tanh": _fixed(1 / 128, 0),
    "LogSoftmax": _fixed(16 / 256, 127),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), Rule()),
    "ReduceMax": Rule(SAME),
    "MaxPool": Rule(SAME, accepts=_one_output),
    "AveragePool": Rule(SAME, frees=_averages_all),
    "GlobalMaxPool": Rule(SAME),
    "GlobalAveragePool": Rule(),
    "Concat": Rule(SAME, data=None, passive=True),
    "Where": Rule(SAME, data=(1, 2)),
    **dict.fromkeys(("Split", "Slice", "Pad", "Reshape", "Transpose", "Expand", "Tile"), MOVE),
    **dict.fromkeys(("Resize", "DepthToSpace", "SpaceToDepth"), MOVE),
    "Gather": Rule(SAME, passive=True, accepts=lambda node: constant(node.inputs[0]) is None),
    "ArgMax": Rule(),
    "Identity": Rule(),
}


def rule(layer: Layer) -> Rule | None:
    """The rule of the layer's main operator, or None when some node of the layer has no int8 kernel."""
    if any(node.op_type not in RULES or not RULES[node.op_type].accepts(node) for node in layer.nodes):
        return None
    return RULES[layer.node.op_type]


def ties(layer: Layer) -> bool:
    """Whether the layer's data inputs and outputs must have equal scales."""
    entry = RULES[layer.node.op_type]
    return entry.output == SAME and not entry.frees(layer.node)


def weight(layer: Layer) -> ir.Value | None:
    """The constant with int8 weights, per channel or not; None for operators without."""
    entry = RULES.get(layer.node.op_type)
    if entry is None or entry.weight is None:
        return None
    value = layer.node.inputs[entry.weight]
    array = constant(value)
    # A batch of constant matrices has no single output channel: it is an operand like any other.
    return None if array is None or (layer.node.op_type == "MatMul" and array.ndim != 2) else value


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
