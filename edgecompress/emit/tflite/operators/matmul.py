"""Gemm and MatMul: FULLY_CONNECTED where one side is constant, else BATCH_MATMUL."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.emit.tflite.operators.convolution import bias_tensor
from edgecompress.emit.tflite.registry import lowering
from edgecompress.graph.annotations import Quantization, quantization
from edgecompress.graph.fusion import Layer
from edgecompress.lowering import forms
from edgecompress.lowering.context import ACTIVATIONS, Context, shape


@lowering("Gemm")
def gemm(ctx: Context, layer: Layer) -> None:
    """y = x W^T + b, W [out, in]. A flattened image is read as it lies: W's columns are permuted instead."""
    x, weight = layer.node.inputs[0], layer.node.inputs[1]
    int8 = ctx.layer_int8(layer)
    columns = np.arange(shape(weight)[1])
    if (image := flattened(x)) is not None and forms.axes(ctx.form(image))[0] == 0:
        x = image
        order = forms.axes(ctx.form(x))[1:]
        columns = columns.reshape(shape(x)[1:]).transpose([a - 1 for a in order]).ravel()
        source = ctx.get(x, None, int8)
    else:
        source = ctx.get(x, (0, 1), int8)
    matrix = weight_matrix(ctx, weight, ctx.array(weight)[:, columns], quantization(weight))
    fully_connected(ctx, layer, source, matrix, (0, 1))


def flattened(x: ir.Value) -> ir.Value | None:
    """The image [N, ...] that a Reshape to [N, features] flattens, when x is that Reshape's output."""
    reshape = x.producer()
    if reshape is None or reshape.op_type != "Reshape" or len(shape(x)) != 2:
        return None
    source = reshape.inputs[0]
    dims = shape(source)
    if source.const_value is not None or len(dims) < 3 or dims[0] != shape(x)[0]:
        return None
    q, q_source = quantization(x), quantization(source)
    return source if q is None or q.same_as(q_source) else None


@lowering("MatMul")
def matmul(ctx: Context, layer: Layer) -> None:
    a, b = layer.node.inputs[0], layer.node.inputs[1]
    if ctx.array(b) is not None and len(shape(b)) == 2 and len(shape(a)) >= 2:
        q = quantization(b)
        if q is not None and q.axis is not None:  # [K, N] quantised along N becomes [N, K] along 0
            q = Quantization(q.scale, q.zero_point, 1 - q.axis, q.dtype, q.narrow_range)
        source = ctx.get(a, forms.identity(len(shape(a))), ctx.layer_int8(layer))
        matrix = weight_matrix(ctx, b, ctx.array(b).T, q)
        return fully_connected(ctx, layer, source, matrix, forms.identity(len(shape(a))))
    return batch_matmul(ctx, layer)


def weight_matrix(ctx: Context, weight: ir.Value, matrix: np.ndarray, q: Quantization | None) -> int:
    """Constant [out, in]."""
    name = weight.name or ""
    if q is None:
        return ctx.constant(matrix, name=name)
    if q.dtype == ir.DataType.FLOAT16:
        return ctx.half(np.ascontiguousarray(matrix), name)
    return ctx.constant(q.quantize(matrix), q, name, 0)


def fully_connected(ctx: Context, layer: Layer, source: int, matrix: int, form: forms.Form) -> None:
    int8 = ctx.layer_int8(layer)
    y = layer.output
    target = ctx.new(y, form, int8)
    bias = -1 if layer.bias is None else bias_tensor(ctx, layer, int8)
    ctx.op(
        "FULLY_CONNECTED",
        [source, matrix, bias],
        [target],
        keepNumDims=len(form) > 2,
        fusedActivationFunction=ACTIVATIONS[layer.activation_kind],
    )


def batch_matmul(ctx: Context, layer: Layer) -> None:
    """An operand whose last two axes lie swapped is read so (adj_x, adj_y), without a TRANSPOSE."""
    int8 = ctx.layer_int8(layer)
    y = layer.output
    (a, swap_a), (b, swap_b) = (_operand(ctx, v, int8) for v in layer.node.inputs)
    target = ctx.new(y, forms.identity(len(shape(y))), int8)
    ctx.op("BATCH_MATMUL", [a, b], [target], adjX=swap_a, adjY=swap_b)


def _operand(ctx: Context, value: ir.Value, int8: bool) -> tuple[int, bool]:
    rank = len(shape(value))
    plain = forms.identity(rank)
    swapped = (*plain[:-2], rank - 1, rank - 2)
    if value.const_value is None and rank >= 2 and forms.same_order(ctx.form(value), swapped, shape(value)):
        return ctx.get(value, swapped, int8), True
    return ctx.get(value, plain, int8), False
