"""Gemm and MatMul: products of matrices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import quantization
from edgecompress.graph.channel_axes import ChannelAxes, elements, shape
from edgecompress.graph.channel_rules import broadcast
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, along, bound_of, weighted_sums
from edgecompress.graph.nodes import argument, arguments, optional_parameter, parameter
from edgecompress.lowering import forms
from edgecompress.lowering.context import ACTIVATIONS, Context
from edgecompress.lowering.parts import Parts
from edgecompress.lowering.weight_tensors import bias_tensor, weight_matrix
from edgecompress.operators.example import Example
from edgecompress.operators.record import (
    Integer,
    MatrixInput,
    Operator,
    Sum,
    TorchFunction,
    View,
    Weights,
    always,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor

# ---- TFLite: FULLY_CONNECTED where one side is constant, else BATCH_MATMUL ----


def _lower_gemm(ctx: Context, layer: Layer) -> None:
    """y = x W^T + b, W [out, in]. A flattened image is read as it lies: W's columns are permuted instead."""
    x, weight = argument(layer.node, 0), argument(layer.node, 1)
    int8 = ctx.layer_int8(layer)
    columns = np.arange(shape(weight)[1])
    if (image := _flattened(x)) is not None and forms.axes(ctx.form(image))[0] == 0:
        x = image
        order = forms.axes(ctx.form(x))[1:]
        columns = columns.reshape(shape(x)[1:]).transpose([a - 1 for a in order]).ravel()
        source = ctx.get(x, None, int8)
    else:
        source = ctx.get(x, (0, 1), int8)
    matrix = weight_matrix(ctx, weight, parameter(layer.node, 1)[:, columns], quantization(weight))
    _fully_connected(ctx, layer, source, matrix, (0, 1))


def _flattened(x: ir.Value) -> ir.Value | None:
    """The image [N, ...] that a Reshape to [N, features] flattens, when x is that Reshape's output."""
    reshape = x.producer()
    if reshape is None or reshape.op_type != "Reshape" or len(shape(x)) != 2:
        return None
    source = argument(reshape, 0)
    dims = shape(source)
    if source.const_value is not None or len(dims) < 3 or dims[0] != shape(x)[0]:
        return None
    q, q_source = quantization(x), quantization(source)
    return source if q is None or q.same_as(q_source) else None


def _lower_matmul(ctx: Context, layer: Layer) -> None:
    a, b = argument(layer.node, 0), argument(layer.node, 1)
    array = ctx.array(b)
    if array is not None and array.ndim == 2 and len(shape(a)) >= 2:
        q = quantization(b)
        if q is not None and q.axis is not None:  # [K, N] quantized along N becomes [N, K] along 0
            q = replace(q, axis=1 - q.axis)
        source = ctx.get(a, forms.identity(len(shape(a))), ctx.layer_int8(layer))
        matrix = weight_matrix(ctx, b, array.T, q)
        _fully_connected(ctx, layer, source, matrix, forms.identity(len(shape(a))))
    else:
        _batch_matmul(ctx, layer)


def _fully_connected(ctx: Context, layer: Layer, source: int, matrix: int, form: forms.Form) -> None:
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


def _batch_matmul(ctx: Context, layer: Layer) -> None:
    """An operand whose last two axes lie swapped is read so (adj_x, adj_y), without a TRANSPOSE."""
    int8 = ctx.layer_int8(layer)
    y = layer.output
    (a, swap_a), (b, swap_b) = (_operand(ctx, v, int8) for v in arguments(layer.node))
    target = ctx.new(y, forms.identity(len(shape(y))), int8)
    ctx.op("BATCH_MATMUL", [a, b], [target], adjX=swap_a, adjY=swap_b)


def _operand(ctx: Context, value: ir.Value, int8: bool) -> tuple[int, bool]:
    rank = len(shape(value))
    plain = forms.identity(rank)
    swapped = (*plain[:-2], rank - 1, rank - 2)
    if value.const_value is None and rank >= 2 and forms.same_order(ctx.form(value), swapped, shape(value)):
        return ctx.get(value, swapped, int8), True
    return ctx.get(value, plain, int8), False


# ---- channels, bounds, costs ----


def _gemm_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """[n, in] x [out, in]^T + bias."""
    x, weight, bias, y = *arguments(node)[:3], node.outputs[0]
    axes.couple(axes.ids(x, 0), axes.ids(y, 0))
    axes.couple(axes.ids(x, 1), axes.ids(weight, 1))
    axes.couple(axes.ids(weight, 0), axes.ids(y, 1))
    broadcast(bias, y, axes)


def _matmul_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """[.., m, k] x [.., k, n]; a vector has no m or no n."""
    a, b, y = *arguments(node)[:2], node.outputs[0]
    rows, columns = len(shape(a)) > 1, len(shape(b)) > 1
    axes.couple(axes.ids(a, -1), axes.ids(b, -2 if columns else -1))
    if rows:
        axes.couple(axes.ids(a, -2), axes.ids(y, -1 - columns))
    if columns:
        axes.couple(axes.ids(b, -1), axes.ids(y, -1))
    for value in (a, b):
        for axis in range(-len(shape(value)), -2):
            out = axis + 2 - rows - columns
            if shape(value)[axis] == shape(y)[out]:
                axes.couple(axes.ids(value, axis), axes.ids(y, out))


def _gemm_bounds(node: ir.Node, known: Known) -> Interval:
    weight, bias = bound_of(known, 1).low, bound_of(known, 2)
    line = along(bound_of(known, 0), 1, weight.shape[1])
    return weighted_sums(weight[None, :, :, None], line, bias, (1, -1))


def _product_macs(node: ir.Node) -> int:
    """Each output is a dot product over the last dimension of the first input."""
    return elements(node.outputs[0]) * shape(argument(node, 0))[-1]


# ---- as a matrix product, and in torch ----


def _rows(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1)


def _columns(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    return weight.T


def _one_group(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return x[..., None, :]


def _gemm_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    return F.linear  # canonical: transB = 1, transA = 0, alpha = beta = 1


def _matmul_torch(node: ir.Node) -> TorchFunction:
    """One large product rather than a batch of small ones where the second operand is a matrix."""

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        if b.ndim == 2 and a.ndim > 2:
            return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])
        return a @ b

    return multiply


# ---- determinants ----


def _determinant_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """The sum over permutations, of matrices of up to 3 x 3."""
    if _accepts_size(node) is not None:
        return None
    x = argument(node, 0)
    size = shape(x)[-1]
    rows = [op.Gather(x, np.int64(i), axis=-2) for i in range(size)]
    total: ir.Value | None = None
    for order in itertools.permutations(range(size)):
        product = op.Gather(rows[0], np.int64(order[0]), axis=-1)
        for row, column in zip(rows[1:], order[1:]):
            product = op.Mul(product, op.Gather(row, np.int64(column), axis=-1))
        is_odd = sum(a > b for a, b in itertools.combinations(order, 2)) % 2
        total = product if total is None else op.Sub(total, product) if is_odd else op.Add(total, product)
    assert total is not None
    return [total]


def _accepts_size(node: ir.Node) -> str | None:
    size = shape(argument(node, 0))[-1]
    return None if size <= 3 else f"operator Det of {size} x {size} matrices (3 x 3 are supported)"


register(
    Operator(
        "Gemm",
        examples=(
            Example("y = Gemm<transB=1>(x, w, b)", {"x": (1, 12)}, {"w": (5, 12), "b": (5,)}),
            Example("f = Flatten(x) y = Gemm<transB=1>(f, w, b)", {"x": (1, 3, 2, 4)}, {"w": (5, 24), "b": (5,)}),
        ),
        channels=_gemm_channels,
        bounds=_gemm_bounds,
        torch=_gemm_torch,
        weights=Weights(
            learned=(1, 2), matrices=(MatrixInput(1, 0, 1),), view=View(_rows, _one_group, channels_last=True)
        ),
        integer=Integer(
            weight=1,
            accepts=lambda node: optional_parameter(node, 1) is not None,
            sum=Sum("product", axis=-1),
            int16=always,
        ),
        tflite=_lower_gemm,
        macs=_product_macs,
    ),
    Operator(
        "MatMul",
        examples=(
            Example("y = MatMul(x, w)", {"x": (1, 6, 12)}, {"w": (12, 5)}),
            Example("m = MatMul(x, w) y = Add(m, b)", {"x": (1, 6, 12)}, {"w": (12, 5), "b": (5,)}),
            Example("y = MatMul(x, z)", {"x": (1, 2, 6, 12), "z": (1, 2, 12, 5)}),
        ),
        channels=_matmul_channels,
        torch=_matmul_torch,
        weights=Weights(
            learned=(0, 1),
            matrices=(MatrixInput(0, -2, -1), MatrixInput(1, -1, -2)),
            view=View(_columns, _one_group, channels_last=True),
        ),
        integer=Integer(data=None, weight=1, weight_axis=1, sum=Sum("product", axis=-1), int16=always),
        tflite=_lower_matmul,
        macs=_product_macs,
    ),
    Operator(
        "Det",
        examples=(Example("y = Det(x)", {"x": (4, 3, 3)}), Example("y = Det(x)", {"x": (2, 3, 2, 2)})),
        accepts=_accepts_size,
        parts=_determinant_parts,
    ),
)
