"""How each layer's int8 kernel computes its output: what it adds up, and in which units."""

from __future__ import annotations

from collections.abc import Callable, Container

import onnx_ir as ir
from torch import Tensor

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.fake import Range
from edgecompress.compress.quantize.requantize import Accumulator, Kernels, Scaling, averaged, rounded
from edgecompress.graph.annotations import is_integer, quantization
from edgecompress.graph.channel_axes import elements
from edgecompress.graph.fusion import Layer
from edgecompress.graph.nodes import argument, arguments
from edgecompress.operators.record import Sum

HEADROOM = 20  # bits by which ADD and SUB scale their operands up (add.cc, left_shift)


class Scales:
    """The current scales of a layer, while they are learned."""

    def __init__(self, range_: Callable[[ir.Value], Range], weights: dict[str, Callable[[], Tensor]]) -> None:
        """range_: of a value. weights: by name, the scale of an int8 weight, float32 [channels] or [1]."""
        self.range, self.weights = range_, weights

    def product(self, layer: Layer, axis: int | None) -> Accumulator:
        """A sum in units of the input's scale times the constant weight's, or times the other operand's."""
        source, weight = self.range(argument(layer.node, 0)), operators.weight(layer)
        if weight is None:
            other = self.range(argument(layer.node, 1))
            return Accumulator(lambda: (source.scale.double() * other.scale.double()).detach())
        scale = self.weights[str(weight.name)]
        return Accumulator(lambda: (source.scale.double() * scale().double()).detach(), axis)

    def total(self, layer: Layer) -> Accumulator:
        """A sum in units of the larger one of two operands' scales, shifted up by HEADROOM bits."""
        sources = [self.range(v) for v in arguments(layer.node)[:2]]
        return Accumulator(lambda: max(s.scale.detach().double() for s in sources) * 2.0 ** (1 - HEADROOM))

    def sum(self, layer: Layer, count: int = 1, whole: bool = True) -> Accumulator:
        """count: how many are averaged, 1 for a sum or a single number."""
        source = self.range(argument(layer.node, 0))
        return Accumulator(lambda: source.scale.detach().double() / count, count=count, whole=whole)


def _accumulator(scales: Scales, layer: Layer, added: Sum) -> Accumulator:
    if added.unit == "product":
        return scales.product(layer, added.axis)
    if added.unit == "total":
        return scales.total(layer)
    return scales.sum(layer, _summands(layer) if added.unit == "mean" else 1, added.whole)


def _summands(layer: Layer) -> int:
    """How many numbers of the input make one of the output."""
    return elements(argument(layer.node, 0)) // elements(layer.node.outputs[0])


def kernel_scaling(layer: Layer | None, scales: Scales, kernels: Kernels, zero_point: int) -> Scaling:
    """layer: that makes the value, None for an input of the graph. zero_point: of the value."""
    added = None if layer is None or not is_integer(layer.node) else operators.RULES[layer.node.op_type].sum
    if layer is None or added is None:
        return rounded
    if added.unit == "mean" and operators.ties(layer):
        return averaged(zero_point)
    return kernels(_accumulator(scales, layer, added))


def only_moves(layer: Layer | None, rounded_values: Container[ir.Value]) -> bool:
    """Whether the layer's outputs are some of its inputs' numbers, which are on the outputs' grid already."""
    if layer is None or not is_integer(layer.node) or not operators.ties(layer):
        return False
    if operators.RULES[layer.node.op_type].computes:
        return False
    q = quantization(layer.output)
    return all(v in rounded_values and quantization(v) is q for _, v in operators.data_inputs(layer))
