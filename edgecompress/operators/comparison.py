"""Comparisons and logic, Where, which chooses by them, and Cast, which turns their results into numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.channel_rules import elementwise
from edgecompress.graph.fusion import Layer
from edgecompress.graph.nodes import argument, arguments, integer
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES
from edgecompress.lowering.operands import operand
from edgecompress.lowering.parts import Parts
from edgecompress.operators.elementwise import binary, plain, unary
from edgecompress.operators.example import Example
from edgecompress.operators.record import (
    COMPARED_WHERE_NEEDED,
    SAME,
    Integer,
    Operator,
    TorchFunction,
    always,
    register,
)


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


def _is_nan_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """NaN alone is not equal to itself."""
    x = argument(node, 0)
    return [op.Not(op.Equal(x, x))]


def _is_inf_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Beyond the largest float, at the ends that are asked for."""
    x = argument(node, 0)
    positive, negative = (bool(integer(node, f"detect_{side}", 1)) for side in ("positive", "negative"))
    if not (positive or negative):
        return [op.Less(x, float("-inf"))]
    size = op.Abs(x) if positive and negative else x if positive else op.Neg(x)
    return [op.Greater(size, LARGEST)]


def _xor_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [op.Not(op.Equal(argument(node, 0), argument(node, 1)))]


LARGEST = float(np.finfo(np.float32).max)
INPUTS = {"x": (1, 4, 6, 5), "z": (1, 4, 6, 5)}
HALF = {"o": np.float32(0.5)}


register(
    Operator(
        "Equal",
        examples=(
            Example("a = Cast<to=6>(x) b = Cast<to=6>(z) c = Equal(a, b) y = Cast<to=1>(c)", INPUTS),
            Example("r = Relu(x) c = Equal(r, o) y = Cast<to=1>(c)", constants={"o": np.float32(0)}),
        ),
        channels=elementwise,
        torch=plain("eq"),
        integer=COMPARED_WHERE_NEEDED,
        tflite=binary("EQUAL"),
        layout="free",
    ),
    Operator(
        "Greater",
        examples=(Example("c = Greater(x, z) y = Cast<to=1>(c)", INPUTS),),
        channels=elementwise,
        torch=plain("gt"),
        integer=COMPARED_WHERE_NEEDED,
        tflite=binary("GREATER"),
        layout="free",
    ),
    Operator(
        "Less",
        examples=(Example("c = Less(x, z) y = Cast<to=1>(c)", INPUTS),),
        channels=elementwise,
        torch=plain("lt"),
        integer=COMPARED_WHERE_NEEDED,
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
        "And",
        examples=(Example("a = Less(x, z) b = Less(z, o) c = And(a, b) y = Cast<to=1>(c)", INPUTS, constants=HALF),),
        channels=elementwise,
        torch=plain("logical_and"),
        tflite=binary("LOGICAL_AND"),
        layout="free",
    ),
    Operator(
        "Or",
        examples=(Example("a = Less(x, z) b = Less(z, o) c = Or(a, b) y = Cast<to=1>(c)", INPUTS, constants=HALF),),
        channels=elementwise,
        torch=plain("logical_or"),
        tflite=binary("LOGICAL_OR"),
        layout="free",
    ),
    Operator(
        "Xor",
        examples=(Example("a = Less(x, z) b = Not(a) c = Greater(x, z) d = Xor(b, c) y = Cast<to=1>(d)", INPUTS),),
        parts=_xor_parts,
    ),
    Operator("IsNaN", examples=(Example("s = Log(x) n = IsNaN(s) y = Cast<to=1>(n)"),), parts=_is_nan_parts),
    Operator(
        "IsInf",
        examples=(
            Example("r = Relu(x) l = Log(r) n = IsInf(l) y = Cast<to=1>(n)"),
            Example("r = Relu(x) l = Log(r) n = IsInf<detect_negative=0>(l) y = Cast<to=1>(n)"),
        ),
        parts=_is_inf_parts,
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
