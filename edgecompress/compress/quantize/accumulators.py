"""How the int8 kernel of each layer comes to its output: what it adds up, and in which units."""

from __future__ import annotations

import math
from collections.abc import Callable, Container

import onnx_ir as ir
from torch import Tensor

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.fake import Range
from edgecompress.compress.quantize.requantize import Accumulator, Kernels, Scaling, averaged, rounded
from edgecompress.graph.annotations import is_int8, quantization
from edgecompress.graph.fusion import Layer

HEADROOM = 20  # bits by which ADD and SUB scale their operands up (add.cc, left_shift)
COMPUTED = {"AveragePool", "Resize", "Pad"}  # share their input's scale, and yet make numbers of their own


class Scales:
    """What a layer's scales are now: of a value's Range, and of an int8 weight (float32 [channels] or [1])."""

    def __init__(self, range_: Callable[[ir.Value], Range], weights: dict[str, Callable[[], Tensor]]) -> None:
        self.range, self.weights = range_, weights

    def product(self, layer: Layer, axis: int | None, once: bool = False) -> Accumulator:
        """Of the input's scale and the constant weight's, or the other operand's."""
        source, weight = self.range(layer.node.inputs[0]), operators.weight(layer)
        if weight is None:
            other = self.range(layer.node.inputs[1])
            return Accumulator(lambda: (source.scale.double() * other.scale.double()).detach())
        scale = self.weights[str(weight.name)]
        return Accumulator(lambda: (source.scale.double() * scale().double()).detach(), axis, once=once)

    def total(self, layer: Layer) -> Accumulator:
        sources = [self.range(v) for v in layer.node.inputs[:2]]
        return Accumulator(lambda: max(s.scale.detach().double() for s in sources) * 2.0 ** (1 - HEADROOM))

    def sum(self, layer: Layer, count: int = 1, whole: bool = True) -> Accumulator:
        """count: how many are averaged, 1 for a sum or a single number."""
        source = self.range(layer.node.inputs[0])
        return Accumulator(lambda: source.scale.detach().double() / count, count=count, whole=whole)


def _mean(scales: Scales, layer: Layer) -> Accumulator:
    before, after = (math.prod(int(d) for d in v.shape) for v in (layer.node.inputs[0], layer.node.outputs[0]))
    return scales.sum(layer, before // after)


TABLE: dict[str, Callable[[Scales, Layer], Accumulator]] = {
    "Conv": lambda scales, layer: scales.product(layer, 1),
    "ConvTranspose": lambda scales, layer: scales.product(layer, 1),
    "Gemm": lambda scales, layer: scales.product(layer, -1, once=True),
    "MatMul": lambda scales, layer: scales.product(layer, -1, once=True),
    "Mul": lambda scales, layer: scales.product(layer, None),
    "Add": lambda scales, layer: scales.total(layer),
    "Sub": lambda scales, layer: scales.total(layer),
    "AveragePool": _mean,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
    "Clip": lambda scales, layer: scales.sum(layer, whole=False),
    **dict.fromkeys(("ReduceSum", "Relu", "Identity"), lambda scales, layer: scales.sum(layer)),
}


def kernel_scaling(layer: Layer | None, scales: Scales, kernels: Kernels, zero_point: int) -> Scaling:
    """layer: that makes the value, None for an input of the graph. zero_point: of the value."""
    if layer is None or not is_int8(layer.node) or layer.node.op_type not in TABLE:
        return rounded
    if layer.node.op_type == "AveragePool" and operators.ties(layer):
        return averaged(zero_point)
    return kernels(TABLE[layer.node.op_type](scales, layer))


def only_moves(layer: Layer | None, rounded_values: Container[ir.Value]) -> bool:
    """Whether the layer's outputs are some of its inputs' numbers, which are on the outputs' grid already."""
    if layer is None or not is_int8(layer.node) or layer.node.op_type in COMPUTED or not operators.ties(layer):
        return False
    q = quantization(layer.output)
    return all(v in rounded_values and quantization(v) is q for _, v in operators.data_inputs(layer))
