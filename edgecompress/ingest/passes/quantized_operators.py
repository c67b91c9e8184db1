"""Operators on quantized integers (ONNX's QOperator format), and QuantizeLinear and DequantizeLinear, with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument, integer, text
from edgecompress.ingest.passes.edit import Edit, input_or_none
from edgecompress.ingest.passes.narrow_types import FLOAT, GRIDS, INT32, NARROW, RANGES, on_grid
from edgecompress.lowering.parts import Parts, Rule, written_in_parts

MICROSOFT = "com.microsoft"


class QOperatorToQDQ(ir.passes.InPlacePass):
    """1. QLinearConv and others become their float operators between DequantizeLinear and QuantizeLinear.
    2. Layers whose inputs are rounded as they come (DynamicQuantizeLinear, DynamicQuantizeLSTM) take them as they are:
       these have no scales to keep.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        is_dynamic = bool([node for node in list(model.graph) if _take_floats(model, node)])
        return ir.passes.PassResult(model, _write(model, QDQ | FLOAT_LAYERS).modified or is_dynamic)


def _take_floats(model: ir.Model, node: ir.Node) -> bool:
    """Takes a DynamicQuantizeLinear out, in place, if layers alone read its integers; these compute on x then."""
    if node.op_type != "DynamicQuantizeLinear" or any(v.is_graph_output() for v in node.outputs):
        return False
    integers, scale, zero = node.outputs
    layers = [(use.node, use.idx) for use in integers.uses()]
    readers = {(use.node, use.idx) for use in zero.uses()}
    if not all(n.op_type in LAYERS and i == 0 for n, i in layers) or readers != {(n, 2) for n, _ in layers}:
        return False
    for layer, _ in layers:
        layer.replace_input_with(0, node.inputs[0])
        layer.replace_input_with(2, None)
        layer.op_type = LAYERS[layer.op_type]
        layer.outputs[0].type = ir.TensorType(FLOAT)
        _leave_bias_exact(layer)
    one = Edit(model.graph).constant(scale.name, np.array(1, np.float32))
    scale.replace_all_uses_with(one)
    model.graph.remove(node, safe=True)
    return True


def _leave_bias_exact(layer: ir.Node) -> None:
    """Takes the rounding out of a bias that is added to the layer's sums, Cast(Floor(bias / scale)), in place: ONNX
    Runtime's tool wrote it so before it had biases in float."""
    for use in layer.outputs[0].uses():
        if use.node.op_type != "Add":
            continue
        chain, value = [use.node], argument(use.node, 1 - use.idx)
        while (maker := value.producer()) is not None and maker.op_type in ("Reshape", "Cast", "Floor"):
            chain.append(maker)
            value = argument(maker, 0)
        for node in chain:
            node.outputs[0].type = ir.TensorType(FLOAT)
            if node.op_type in ("Cast", "Floor"):
                node.outputs[0].replace_all_uses_with(argument(node, 0))


class QuantizedToFloat(ir.passes.InPlacePass):
    """What else computes on quantized integers computes the same numbers in float32, with the roundings.

    DequantizeLinear of a constant stays: it is known beforehand.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return _write(model, ARITHMETIC)


def _write(model: ir.Model, rules: Mapping[str, Rule]) -> ir.passes.PassResult:
    def rule_of(node: ir.Node) -> Rule | None:
        is_constant = node.op_type == "DequantizeLinear" and _is_known(node)
        return None if node.domain not in ("", MICROSOFT) or is_constant else rules.get(node.op_type)

    if not any(rule_of(node) for node in model.graph):
        return ir.passes.PassResult(model, False)
    ShapeInferencePass()(model)
    written_in_parts(model, rule_of)
    return ir.passes.PassResult(model, True)


def _is_known(node: ir.Node) -> bool:
    return argument(node, 0).dtype not in NARROW and all(v is None or constant(v) is not None for v in node.inputs)


# ---- to QuantizeLinear and DequantizeLinear ----


# Operands lie in threes: integers, their scale, their zero point. The output has the last two. The bias of a layer is
# in steps of the first operand's scale times the second's.


def _linear(operator: str, count: int = 1, axes: Sequence[int] = (1, 1)) -> Rule:
    """An operator of `count` operands. axes: along which those have scales, if they have more than one."""

    def rule(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
        operands = [_dequantized(op, node, 3 * i, axes[i]) for i in range(count)]
        attributes = {k: v for k, v in _attributes(node).items() if k not in ("channels_last", "opset")}
        return [_quantized(op, node, getattr(op, operator)(*operands, **attributes), 3 * count)]

    return rule


def _linear_layer(operator: str, bias: int, result: int) -> Rule:
    """Conv or Gemm, with a bias at that position, and the result's scale at the other."""

    def rule(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
        axis = 0 if operator == "Conv" or integer(node, "transB") else 1
        operands = [_dequantized(op, node, 0, 1), _dequantized(op, node, 3, axis)]
        given = input_or_none(node, bias)
        if given is not None:
            step = op.Mul(*(_scalar(op, argument(node, i)) for i in (1, 4)))
            operands.append(op.Mul(op.Cast(given, to=int(FLOAT)), step))
        return [_quantized(op, node, getattr(op, operator)(*operands, **_attributes(node)), result)]

    return rule


def _linear_concat(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """The output's scale and zero point stand first."""
    parts = [_dequantized(op, node, i, 1) for i in range(2, len(node.inputs), 3)]
    return [_quantized(op, node, op.Concat(*parts, **_attributes(node)), 0)]


def _dequantized(op: Parts, node: ir.Node, position: int, axis: int) -> ir.Value:
    scale, zero = _scalar(op, argument(node, position + 1)), input_or_none(node, position + 2)
    rest = [] if zero is None else [_scalar(op, zero)]
    return op.DequantizeLinear(argument(node, position), scale, *rest, axis=axis)


def _quantized(op: Parts, node: ir.Node, value: ir.Value, position: int) -> ir.Value:
    """Without a zero point it is 0 of the first operand's type."""
    scale, zero = _scalar(op, argument(node, position)), input_or_none(node, position + 1)
    if zero is not None:
        return op.QuantizeLinear(value, scale, _scalar(op, zero))
    dtype = argument(node, 0 if position else 2).dtype or ir.DataType.UINT8
    return op.QuantizeLinear(value, scale, np.zeros((), dtype.numpy()))


def _scalar(op: Parts, value: ir.Value) -> ir.Value:
    """A scale or zero point of one element, [1], as [], which is one for the whole tensor."""
    if value.shape is None or len(value.shape) != 1 or value.shape[0] != 1:
        return value
    array = constant(value)
    return op.Reshape(value, np.zeros(0, np.int64)) if array is None else op.constant(array.reshape(()))


LAYERS = {"ConvInteger": "FloatConv", "MatMulInteger": "FloatMatMul"}  # on x as it is, until they are written
QDQ: dict[str, Rule] = {
    "QLinearConv": _linear_layer("Conv", bias=8, result=6),
    "QLinearMatMul": _linear("MatMul", 2, axes=(-2, -1)),
    # of Microsoft's domain, as ONNX Runtime's tools write them
    "QGemm": _linear_layer("Gemm", bias=6, result=7),
    "QLinearAdd": _linear("Add", 2),
    "QLinearAveragePool": _linear("AveragePool"),
    "QLinearConcat": _linear_concat,
    "QLinearGlobalAveragePool": _linear("GlobalAveragePool"),
    "QLinearLeakyRelu": _linear("LeakyRelu"),
    "QLinearMul": _linear("Mul", 2),
    "QLinearSigmoid": _linear("Sigmoid"),
    "QLinearSoftmax": _linear("Softmax"),
}


# ---- to arithmetic ----


def _quantize(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """round(x / scale) + zero point, within the type."""
    x, zero = op.Cast(argument(node, 0), to=int(FLOAT)), input_or_none(node, 2)
    given = integer(node, "output_dtype") or int(ir.DataType.UINT8)
    dtype = ir.DataType(given) if zero is None or zero.dtype is None else zero.dtype
    scale = _along_axis(op, node, argument(node, 1))
    if scale is None:
        return None
    scaled = op.Div(x, scale)
    if dtype in GRIDS:
        return [on_grid(op, scaled, GRIDS[dtype], is_saturated=bool(integer(node, "saturate", 1)))]
    shifted = op.Round(scaled)
    if zero is not None:
        offset = _along_axis(op, node, zero)
        if offset is None:
            return None
        shifted = op.Add(shifted, offset)
    low, high = RANGES.get(dtype) or (np.iinfo(dtype.numpy()).min, np.iinfo(dtype.numpy()).max)
    whole = op.Clip(shifted, float(low), float(high))
    return [op.Cast(whole, to=int(INT32 if dtype in RANGES else dtype))]


def _dequantize(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """(x - zero point) scale."""
    x, zero, scale = op.Cast(argument(node, 0), to=int(FLOAT)), input_or_none(node, 2), argument(node, 1)
    factor = _along_axis(op, node, scale)
    if zero is not None:
        offset = _along_axis(op, node, zero)
        if offset is None:
            return None
        x = op.Sub(x, offset)
    return None if factor is None else [op.Cast(op.Mul(x, factor), to=int(scale.dtype or FLOAT))]


def _along_axis(op: Parts, node: ir.Node, value: ir.Value) -> ir.Value | None:
    """A scale or zero point as float32 that is broadcast against the node's input; None where that is not known."""
    block, x, shape = integer(node, "block_size"), argument(node, 0).shape, value.shape
    number = op.Cast(value, to=int(FLOAT))
    if shape is None or not shape.is_static():
        return None
    if len(shape) == 0:
        return number
    if x is None:
        return None
    axis = integer(node, "axis", 1)
    if len(shape) == 1:
        place = 0 if shape[0] == 1 else axis % len(x)
        return op.Reshape(number, [-1 if i == place else 1 for i in range(len(x))])
    if not block or not x.is_static():
        return None
    size, axis = x.numpy(), axis % len(x)
    return op.Gather(number, np.arange(size[axis]) // block, axis=axis)


def _integer_product(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Zero points of a's rows and of b's columns."""
    a, b = (_centred(op, node, i, [-1, 1] if i == 0 else [-1]) for i in (0, 1))
    product = op.MatMul(a, b)
    return [op.Cast(product, to=int(INT32)) if node.op_type == "MatMulInteger" else product]


def _integer_convolution(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x = _centred(op, node, 0, [])
    w = _centred(op, node, 1, [-1, *[1] * (len(argument(node, 1).shape or ()) - 1)])
    product = op.Conv(x, w, **_attributes(node))
    return [op.Cast(product, to=int(INT32)) if node.op_type == "ConvInteger" else product]


def _centred(op: Parts, node: ir.Node, position: int, shape: Sequence[int]) -> ir.Value:
    """The operand at the position without its zero point, whose numbers lie along an axis as `shape` says."""
    value, zero = op.Cast(argument(node, position), to=int(FLOAT)), input_or_none(node, position + 2)
    if zero is None:
        return value
    offset = op.Cast(zero, to=int(FLOAT))
    is_scalar = zero.shape is not None and all(d == 1 for d in zero.shape)
    if not is_scalar and zero.shape is not None and len(zero.shape) > 1:
        return op.Sub(value, offset)
    return op.Sub(value, op.Reshape(offset, np.asarray([] if is_scalar else shape, np.int64)))


def _float_lstm(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """An LSTM whose activations are rounded as they come, on floats. Its weights are [directions, inputs, 4 hidden],
    with a scale and a zero point for each direction, or for each column of each.
    """
    x, w, r, *rest = node.inputs[:8]
    weights = [_columns(op, node, *at) for at in ((w, 8, 9), (r, 10, 11))]
    return op.several("LSTM", len(node.outputs), x, *weights, *rest, **_attributes(node))


def _columns(op: Parts, node: ir.Node, weight: ir.Value | None, scale: int, zero: int) -> ir.Value:
    """[directions, 4 hidden, inputs] in float."""
    directions = 2 if text(node, "direction", "forward") == "bidirectional" else 1
    apart = np.array([directions, 1, -1])
    offset, factor = (op.Reshape(op.Cast(argument(node, i), to=int(FLOAT)), apart) for i in (zero, scale))
    return op.Transpose(op.Mul(op.Sub(op.Cast(weight, to=int(FLOAT)), offset), factor), perm=[0, 2, 1])


def _dynamic(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """To uint8, by the range of x and 0."""
    x, uint8 = argument(node, 0), int(ir.DataType.UINT8)
    low, high = op.Min(op.ReduceMin(x, keepdims=0), 0.0), op.Max(op.ReduceMax(x, keepdims=0), 0.0)
    scale = op.Div(op.Sub(high, low), 255.0)
    zero = op.Round(op.Clip(op.Div(op.Neg(low), scale), 0.0, 255.0))
    y = op.Clip(op.Add(op.Round(op.Div(x, scale)), zero), 0.0, 255.0)
    return [op.Cast(y, to=uint8), scale, op.Cast(zero, to=uint8)]


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


FLOAT_LAYERS: dict[str, Rule] = {
    "DynamicQuantizeLSTM": _float_lstm,
    "FloatConv": _integer_convolution,
    "FloatMatMul": _integer_product,
}
ARITHMETIC: dict[str, Rule] = {
    "ConvInteger": _integer_convolution,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _integer_product,
    "QuantizeLinear": _quantize,
}
