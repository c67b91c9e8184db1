"""Operators that work element by element: any layout will do, so they take the one their operands lie in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.emit.tflite.registry import lowering
from edgecompress.graph.annotations import quantization
from edgecompress.graph.fusion import Layer
from edgecompress.lowering import forms
from edgecompress.lowering.context import ACTIVATIONS, Context, shape
from edgecompress.lowering.flatbuffer import TENSOR_TYPES

BINARY = {
    "Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Min": "MINIMUM", "Max": "MAXIMUM", "Pow": "POW",
    "Equal": "EQUAL", "Greater": "GREATER", "Less": "LESS",
}  # fmt: skip
FUSES_ACTIVATION = {"ADD", "SUB", "MUL", "DIV"}
UNARY = {
    "Neg": "NEG", "Abs": "ABS", "Sqrt": "SQRT", "Exp": "EXP", "Log": "LOG", "Relu": "RELU", "Elu": "ELU",
    "Sigmoid": "LOGISTIC", "HardSwish": "HARD_SWISH", "Tanh": "TANH", "Not": "LOGICAL_NOT",
}  # fmt: skip


def operand(ctx: Context, value: ir.Value, form: forms.Form, rank: int, int8: bool) -> int:
    """A broadcast operand lined up with `form`; constants lose the size-1 axes in front."""
    own = forms.operand_form(form, rank, len(shape(value)))
    if value.const_value is None:
        return ctx.get(value, own, int8)
    while own and (own[0] is None or shape(value)[own[0]] == 1):
        own = own[1:]
    if not own:  # a scalar
        kept = tuple(range(len(shape(value))))
        return ctx.get(value, kept, int8)
    return _constant(ctx, value, own, int8)


def _constant(ctx: Context, value: ir.Value, form: forms.Form, int8: bool) -> int:
    """A constant with size-1 axes missing from `form`."""
    array, q = ctx.array(value), quantization(value)
    used = forms.axes(form)
    squeezed = array.reshape([n for a, n in enumerate(array.shape) if a in used])
    ranks = {axis: i for i, axis in enumerate(sorted(used))}
    stored = squeezed.transpose([ranks[a] for a in used]).reshape(forms.shape_in(form, array.shape))
    if int8 and q is not None:
        return ctx.constant(q.quantize(stored), q, value.name or "")
    return ctx.constant(stored, name=value.name or "")


@lowering(*BINARY)
def binary(ctx: Context, layer: Layer) -> None:
    """Min and Max take any number of operands in ONNX, two here."""
    kind, int8, y = BINARY[layer.node.op_type], ctx.layer_int8(layer), layer.output
    rank = len(shape(y))
    values = [v for v in layer.node.inputs if v is not None]
    form = ctx.common_form(values, rank)
    operands = [operand(ctx, v, form, rank, int8) for v in values]
    options = {"fusedActivationFunction": ACTIVATIONS[layer.activation_kind]} if kind in FUSES_ACTIVATION else {}
    target = ctx.new(y, form, int8)
    if len(operands) == 1:
        ctx.reshape(operands[0], target)
        return
    running = operands[0]
    for i, other in enumerate(operands[1:], 2):
        dims = np.broadcast_shapes(ctx.tensor(running).shape, ctx.tensor(other).shape)
        result = target if i == len(operands) else ctx.like(target, f"{y.name}/{i}", dims)
        running = ctx.op(kind, [running, other], [result], **options)


@lowering(*UNARY)
def unary(ctx: Context, layer: Layer) -> None:
    x, int8 = layer.node.inputs[0], ctx.layer_int8(layer)
    form = ctx.form(x)
    ctx.op(UNARY[layer.node.op_type], [ctx.get(x, form, int8)], [ctx.new(layer.output, form, int8)])


@lowering("LeakyRelu")
def leaky_relu(ctx: Context, layer: Layer) -> None:
    alpha = layer.node.attributes["alpha"].as_float() if "alpha" in layer.node.attributes else 0.01
    write_leaky_relu(ctx, layer, alpha)


def write_leaky_relu(ctx: Context, layer: Layer, alpha: float) -> None:
    x, int8 = layer.node.inputs[0], ctx.layer_int8(layer)
    form = ctx.form(x)
    ctx.op("LEAKY_RELU", [ctx.get(x, form, int8)], [ctx.new(layer.output, form, int8)], alpha=alpha)


@lowering("Gelu")
def gelu(ctx: Context, layer: Layer) -> None:
    x, int8 = layer.node.inputs[0], ctx.layer_int8(layer)
    form = ctx.form(x)
    kind = layer.node.attributes.get("approximate")
    ctx.op(
        "GELU",
        [ctx.get(x, form, int8)],
        [ctx.new(layer.output, form, int8)],
        approximate=kind is not None and kind.as_string() == "tanh",
    )


@lowering("PRelu")
def prelu(ctx: Context, layer: Layer) -> None:
    """The slope loses the batch axis. A single slope is LEAKY_RELU: tflite-runtime 2.14 gets PRELU's wrong (NaN)."""
    x, slope = layer.node.inputs
    array = ctx.array(slope)
    if array is not None and array.size == 1:
        return write_leaky_relu(ctx, layer, float(array.ravel()[0]))
    int8, form, rank = ctx.layer_int8(layer), ctx.form(x), len(shape(x))
    alpha = ctx.get(slope, forms.operand_form(form, rank, len(shape(slope))), int8)
    tensor = ctx.tensor(alpha)
    if tensor.data is not None and rank > 1:
        alpha = ctx.constant(tensor.data.reshape(tensor.shape[1:]), tensor.quantization, tensor.name)
    ctx.op("PRELU", [ctx.get(x, form, int8), alpha], [ctx.new(layer.output, form, int8)])


@lowering("Clip")
def clip(ctx: Context, layer: Layer) -> None:
    """In int8 the output's own range clips: requantising is enough."""
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    form = ctx.form(x)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    bounds = [ctx.array(v) for v in layer.node.inputs[1:3]] + [None, None]
    low, high = bounds[:2]
    named = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, None): "RELU"}
    kind = named.get((None if low is None else float(low), None if high is None else float(high)))
    if int8:
        ctx.op("QUANTIZE", [source], [target])
    elif kind is not None:
        ctx.op(kind, [source], [target])
    else:
        steps = [(k, b) for k, b in (("MAXIMUM", low), ("MINIMUM", high)) if b is not None]
        for i, (step, bound) in enumerate(steps):
            result = target if i == len(steps) - 1 else ctx.like(target, f"{y.name}/{step}", ctx.tensor(target).shape)
            source = ctx.op(step, [source, ctx.constant(bound.reshape(()))], [result])
        if not steps:
            ctx.reshape(source, target)


@lowering("Identity")
def requantize(ctx: Context, layer: Layer) -> None:
    """A point where the quantiser changes scale; in float nothing happens."""
    x, int8 = layer.node.inputs[0], ctx.layer_int8(layer)
    form = ctx.form(x)
    source = ctx.get(x, form, int8)
    if int8:
        ctx.op("QUANTIZE", [source], [ctx.new(layer.output, form, True)])
    else:
        ctx.bind(layer.output, source, form, False)


@lowering("Where")
def where(ctx: Context, layer: Layer) -> None:
    y, int8 = layer.output, ctx.layer_int8(layer)
    rank = len(shape(y))
    form = ctx.common_form([v for v in layer.node.inputs if v is not None], rank)
    operands = [operand(ctx, v, form, rank, int8) for v in layer.node.inputs]
    ctx.op("SELECT_V2", operands, [ctx.new(y, form, int8)])


@lowering("Cast")
def cast(ctx: Context, layer: Layer) -> None:
    x, y = layer.node.inputs[0], layer.output
    form = ctx.form(x)
    source, target = ctx.get(x, form), ctx.new(y, form)
    before, after = (TENSOR_TYPES[ctx.tensor(i).dtype] for i in (source, target))
    ctx.op("CAST", [source], [target], inDataType=before, outDataType=after)
