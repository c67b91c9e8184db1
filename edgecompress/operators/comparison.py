"""Comparisons and logic, Where, which chooses by them, and Cast, which turns their results into numbers."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.channel_rules import elementwise
from edgecompress.graph.fusion import Layer
from edgecompress.graph.nodes import argument, arguments, integer
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES
from edgecompress.lowering.operands import operand
from edgecompress.operators.elementwise import binary, plain, unary
from edgecompress.operators.example import Example
from edgecompress.operators.record import SAME, Integer, Operator, TorchFunction, always, register


def _lower_where(ctx: Context, layer: Layer) -> None:
    y, int8 = layer.output, ctx.layer_int8(layer)
    rank = len(shape(y))
    form = ctx.common_form(arguments(layer.node), rank)
    operands = [operand(ctx, v, form, rank, int8) for v in arguments(layer.node)]
    ctx.op("SELECT_V2", operands, [ctx.new(y, form, int8)])


def _lower_cast(ctx: Context, layer: Layer) -> None:
    x, y = argument(layer.node, 0), layer.output
    form = ctx.form(x)
    source, target = ctx.get(x, form), ctx.new(y, form)
    before, after = (TENSOR_TYPES[ctx.tensor(i).dtype] for i in (source, target))
    ctx.op("CAST", [source], [target], inDataType=before, outDataType=after)


def _cast_torch(node: ir.Node) -> TorchFunction:
    import torch

    dtypes = {
        ir.DataType.FLOAT: torch.float32,
        ir.DataType.INT64: torch.int64,
        ir.DataType.INT32: torch.int32,
        ir.DataType.BOOL: torch.bool,
    }
    dtype = dtypes[ir.DataType(integer(node, "to"))]
    return lambda x: x.to(dtype)


INPUTS = {"x": (1, 4, 6, 5), "z": (1, 4, 6, 5)}


register(
    Operator(
        "Equal",
        examples=(Example("a = Cast<to=6>(x) b = Cast<to=6>(z) c = Equal(a, b) y = Cast<to=1>(c)", INPUTS),),
        channels=elementwise,
        torch=plain("eq"),
        tflite=binary("EQUAL"),
        layout="free",
    ),
    Operator(
        "Greater",
        examples=(Example("c = Greater(x, z) y = Cast<to=1>(c)", INPUTS),),
        channels=elementwise,
        torch=plain("gt"),
        tflite=binary("GREATER"),
        layout="free",
    ),
    Operator(
        "Less",
        examples=(Example("c = Less(x, z) y = Cast<to=1>(c)", INPUTS),),
        channels=elementwise,
        torch=plain("lt"),
        tflite=binary("LESS"),
        layout="free",
    ),
    Operator(
        "Not",
        examples=(Example("c = Less(x, z) n = Not(c) y = Cast<to=1>(n)", INPUTS),),
        channels=elementwise,
        torch=plain("logical_not"),
        tflite=unary("LOGICAL_NOT"),
        layout="free",
    ),
    Operator(
        "Where",
        examples=(Example("c = Less(x, z) y = Where(c, x, z)", INPUTS),),
        channels=elementwise,
        torch=plain("where"),
        integer=Integer(SAME, data=(1, 2), int16=always),
        tflite=_lower_where,
        layout="free",
    ),
    Operator(
        "Cast",
        examples=(Example("a = Cast<to=6>(x) y = Cast<to=1>(a)"),),
        channels=elementwise,
        torch=_cast_torch,
        tflite=_lower_cast,
        layout="free",
    ),
)
