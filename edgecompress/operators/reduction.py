"""Sums, means and maxima along axes, and where the maximum lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import Quantization
from edgecompress.graph.channel_axes import ChannelAxes, axes_except, dtype_of, shape
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, bound_of
from edgecompress.graph.nodes import argument, integer, optional_parameter, parameter, parameter_integers
from edgecompress.graph.provenance import label
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import Example
from edgecompress.operators.record import SAME, Integer, Operator, Sum, TorchBuilder, TorchFunction, always, register

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_TRIANGLE = 512  # rows of a matrix that adds up: 256 KiB as int8
REDUCTIONS = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceProd": "REDUCE_PROD"}


def _lower_reduction(ctx: Context, layer: Layer) -> None:
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    rank, form = len(shape(x)), ctx.form(x)
    given = optional_parameter(layer.node, 1)
    removed = sorted({int(a) % rank for a in given.ravel()}) if given is not None and given.size else list(range(rank))
    if given is not None and given.size == 0 and integer(layer.node, "noop_with_empty_axes", 0):
        ctx.bind(y, ctx.get(x, form, int8), form, int8)
        return
    keep = bool(integer(layer.node, "keepdims", 1))
    result = form if keep else forms.reduced(form, removed)
    positions = ctx.ints([i for i, a in enumerate(form) if a in removed])
    source, target = ctx.get(x, form, int8), ctx.new(y, result, int8)
    if layer.node.op_type == "ReduceSum" and int8:
        _sum_int8(ctx, source, positions, target, int(np.prod([shape(x)[a] for a in removed])), keep)
    else:
        ctx.op(REDUCTIONS[layer.node.op_type], [source, positions], [target], keepDims=keep)


def _sum_int8(ctx: Context, source: int, positions: int, target: int, count: int, keep: bool) -> None:
    """count * MEAN: LiteRT's reference SUM does not rescale int8. The mean has the sum's integers, at 1/count of its
    scale, and multiplying by count = 127 steps of count / 127 gives them back exactly."""
    result = ctx.tensor(target)
    assert result.quantization is not None
    q = Quantization(result.quantization.scale / np.float32(count), result.quantization.zero_point)
    mean = ctx.op(
        "MEAN",
        [source, positions],
        [ctx.temporary(f"{result.name}/mean", result.shape, result.dtype, q)],
        keepDims=keep,
    )
    factor = Quantization(np.array([count / 127], np.float32), np.zeros(1, np.int32))
    ctx.op("MUL", [mean, ctx.constant(np.array([127], np.int8), factor)], [target])


def _product_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """Products of halves of an axis, until one element is left."""
    x, given = argument(node, 0), optional_parameter(node, 1)
    if x.dtype != ir.DataType.FLOAT:
        return None
    dims, result = list(shape(x)), shape(node.outputs[0])
    if given is not None and given.size:
        axes = sorted({int(a) % len(dims) for a in given.ravel()})
    else:
        axes = [] if integer(node, "noop_with_empty_axes", 0) else list(range(len(dims)))
    for axis in axes:
        while dims[axis] > 1:
            half, is_odd = divmod(dims[axis], 2)
            first, second = (op.Slice(x, [i * half], [(i + 1) * half], [axis]) for i in (0, 1))
            last = [op.Slice(x, [2 * half], [2 * half + 1], [axis])] if is_odd else []
            x = op.Mul(first, second)
            x = op.Concat(x, *last, axis=axis) if last else x
            dims[axis] = half + is_odd
    return [op.Reshape(x, list(result))]


def _lower_arg_max(ctx: Context, layer: Layer) -> None:
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    rank, form = len(shape(x)), ctx.form(x)
    axis = integer(layer.node, "axis", 0) % rank
    dropped = forms.reduced(form, [axis])
    source = ctx.get(x, form, int8)
    target = ctx.new(y, form if integer(layer.node, "keepdims", 1) else dropped)
    result = target
    if integer(layer.node, "keepdims", 1):
        dims = [n for n, a in zip(ctx.tensor(source).shape, form) if a != axis]
        result = ctx.temporary(f"{y.name}/flat", tuple(dims), dtype_of(y))
    ctx.op("ARG_MAX", [source, ctx.ints([form.index(axis)])], [result], outputType=TENSOR_TYPES[dtype_of(y)])
    if result != target:
        ctx.reshape(result, target)


def _lower_cumulative_sum(ctx: Context, layer: Layer) -> None:
    node, x = layer.node, argument(layer.node, 0)
    form = ctx.form(x)
    axis = form.index(int(parameter(node, 1).reshape(())) % len(shape(x)))
    options = {name: bool(integer(node, name, 0)) for name in ("exclusive", "reverse")}
    where = ctx.constant(np.array(axis, np.int32))
    ctx.op("CUMSUM", [ctx.get(x, form), where], [ctx.new(layer.output, form)], **options)


def _cumulative_sum_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """A product with a triangle of ones, which int8 holds exactly."""
    x, dims = argument(node, 0), shape(argument(node, 0))
    axis = int(parameter(node, 1).reshape(())) % len(dims)
    if x.dtype != ir.DataType.FLOAT or dims[axis] > LARGEST_TRIANGLE:
        return None
    ones = np.ones((dims[axis], dims[axis]), np.float32)
    triangle = np.triu(ones, 1 if integer(node, "exclusive", 0) else 0)
    if integer(node, "reverse", 0):
        triangle = triangle.T
    order = [a for a in range(len(dims)) if a != axis] + [axis]
    sums = op.MatMul(op.Transpose(x, perm=order), np.ascontiguousarray(triangle))
    return [op.Transpose(sums, perm=[order.index(a) for a in range(len(dims))])]


def _cumulative_sum_torch(node: ir.Node) -> TorchFunction:
    axis = int(parameter(node, 1).reshape(()))
    reverse, exclusive = (bool(integer(node, name, 0)) for name in ("reverse", "exclusive"))

    def add_up(x: Tensor, *parameters: Tensor) -> Tensor:
        total = x.flip(axis).cumsum(axis).flip(axis) if reverse else x.cumsum(axis)
        return total - x if exclusive else total

    return add_up


def _cumulative_product_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Products of 2, 4, 8, .. neighbours (Hillis and Steele, Data Parallel Algorithms, 1986)."""
    x, dims = argument(node, 0), shape(argument(node, 0))
    axis = int(parameter(node, 1).reshape(())) % len(dims)
    is_reverse, dtype = bool(integer(node, "reverse")), (x.dtype or ir.DataType.FLOAT).numpy()

    def moved(value: ir.Value, by: int) -> ir.Value:
        """The elements `by` positions further, and ones in front."""
        ones = np.ones([by if a == axis else n for a, n in enumerate(dims)], dtype)
        if by >= dims[axis]:
            return op.constant(np.ones(dims, dtype))
        first, last = (by, dims[axis]) if is_reverse else (0, dims[axis] - by)
        rest = op.Slice(value, [first], [last], [axis], [1])
        return op.Concat(*((rest, ones) if is_reverse else (ones, rest)), axis=axis)

    if integer(node, "exclusive"):
        x = moved(x, 1)
    by = 1
    while by < dims[axis]:
        x = op.Mul(x, moved(x, by))
        by *= 2
    return [x]


def _lower_top_k(ctx: Context, layer: Layer) -> None:
    """TFLite's has the largest of the last axis, in order; the smallest are the largest of -x."""
    node, x = layer.node, argument(layer.node, 0)
    rank = len(shape(x))
    axis = integer(node, "axis", -1) % rank
    form = (*(a for a in range(rank) if a != axis), axis)
    source, largest = ctx.get(x, form), bool(integer(node, "largest", 1))
    values, indices = node.outputs[0], node.outputs[1]
    dims = forms.shape_in(form, shape(values))
    found = ctx.new(values, form) if largest else ctx.temporary(f"{values.name}/negative", dims, dtype_of(x))
    if not largest:
        source = ctx.op("NEG", [source], [ctx.like(source, f"{x.name}/negative", ctx.tensor(source).shape)])
    places = ctx.temporary(f"{indices.name}/int32", dims, ir.DataType.INT32)
    ctx.op("TOPK_V2", [source, ctx.constant(np.array(dims[-1], np.int32))], [found, places])
    if not largest:
        ctx.op("NEG", [found], [ctx.new(values, form)])
    types = {"inDataType": TENSOR_TYPES[ir.DataType.INT32], "outDataType": TENSOR_TYPES[ir.DataType.INT64]}
    ctx.op("CAST", [places], [ctx.new(indices, form)], **types)


def _top_k_torch(node: ir.Node) -> TorchFunction:
    count, axis = int(parameter(node, 1).reshape(())), integer(node, "axis", -1)
    largest = bool(integer(node, "largest", 1))
    return lambda x, *parameters: x.topk(count, axis, largest)


def _channels(node: ir.Node, axes: ChannelAxes) -> None:
    """A sum with zeros is the sum without; a mean divides by less; a maximum may be one of the zeros."""
    x, y = argument(node, 0), node.outputs[0]
    chosen = [integer(node, "axis", 0)] if node.op_type == "ArgMax" else parameter(node, 1).tolist()
    kept = axes_except(x, chosen)
    places = kept if integer(node, "keepdims", 1) else range(len(kept))
    for a, b in zip(kept, places):
        axes.couple(axes.ids(x, a), axes.ids(y, b))
    for axis in set(range(len(shape(x)))) - set(kept):
        if node.op_type == "ReduceMean":
            axes.approximate(axes.ids(x, axis), f"{label(node)} computes along this axis")
        elif node.op_type != "ReduceSum":
            axes.fix(axes.ids(x, axis), f"{label(node)} computes along this axis")


def _mean_bounds(node: ir.Node, known: Known) -> Interval:
    axes, keep = tuple(parameter(node, 1).tolist()), bool(integer(node, "keepdims", 1))
    x = bound_of(known, 0)
    return Interval(x.low.min(axes, keepdims=keep), x.high.max(axes, keepdims=keep))


def _reduction_torch(name: str) -> TorchBuilder:
    def build(node: ir.Node) -> TorchFunction:
        import torch

        reduce = getattr(torch, name)
        axes, keep = tuple(parameter_integers(node, 1)), bool(integer(node, "keepdims", 1))
        return lambda x, *parameters: reduce(x, axes, keepdim=keep)

    return build


def _product_torch(node: ir.Node) -> TorchFunction:
    axes, keep = sorted(parameter_integers(node, 1), reverse=True), bool(integer(node, "keepdims", 1))

    def multiply(x: Tensor, *parameters: Tensor) -> Tensor:
        for axis in axes:
            x = x.prod(axis, keepdim=keep)
        return x

    return multiply


def _arg_max_torch(node: ir.Node) -> TorchFunction:
    axis, keep = integer(node, "axis"), bool(integer(node, "keepdims", 1))
    if not integer(node, "select_last_index"):
        return lambda x: x.argmax(axis, keepdim=keep)
    return lambda x: x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=keep)


SPATIAL, CHANNELS = {"a": np.array([2, 3])}, {"a": np.array([1])}


def _examples(name: str) -> tuple[Example, ...]:
    return (
        Example(f"y = {name}<keepdims=0>(x, a)", constants=SPATIAL),
        Example(f"y = {name}(x, a)", constants=CHANNELS),
    )


register(
    Operator(
        "CumSum",
        examples=(
            Example("y = CumSum(x, a)", constants={"a": np.array(2)}),
            Example("y = CumSum<exclusive=1, reverse=1>(x, a)", constants={"a": np.array(-1)}),
        ),
        accepts=constant_inputs(1),
        integer_parts=_cumulative_sum_parts,
        torch=_cumulative_sum_torch,
        tflite=_lower_cumulative_sum,
        layout="free",
    ),
    Operator(
        "CumProd",
        examples=(
            Example("y = CumProd(x, a)", constants={"a": np.array(2)}, opset=26),
            Example("y = CumProd<exclusive=1, reverse=1>(x, a)", constants={"a": np.array(-1)}, opset=26),
        ),
        accepts=constant_inputs(1),
        parts=_cumulative_product_parts,
    ),
    Operator(
        "TopK",
        examples=(
            Example("y, i = TopK(x, k) z = Cast<to=1>(i)", constants={"k": [3]}, outputs=("y", "z")),
            Example("y, i = TopK<axis=1, largest=0>(x, k)", constants={"k": [2]}),
        ),
        accepts=constant_inputs(1),
        torch=_top_k_torch,
        tflite=_lower_top_k,
    ),
    Operator(
        "ReduceProd",
        examples=_examples("ReduceProd"),
        accepts=constant_inputs(1),
        integer_parts=_product_parts,
        torch=_product_torch,
        tflite=_lower_reduction,
    ),
    Operator(
        "ReduceMean",
        examples=_examples("ReduceMean"),
        accepts=constant_inputs(1),
        channels=_channels,
        bounds=_mean_bounds,
        torch=_reduction_torch("mean"),
        integer=Integer(sum=Sum("mean"), int16=always),
        tflite=_lower_reduction,
    ),
    Operator(
        "ReduceSum",
        examples=_examples("ReduceSum"),
        accepts=constant_inputs(1),
        channels=_channels,
        torch=_reduction_torch("sum"),
        integer=Integer(sum=Sum("sum")),
        tflite=_lower_reduction,
    ),
    Operator(
        "ReduceMax",
        examples=_examples("ReduceMax"),
        accepts=constant_inputs(1),
        channels=_channels,
        torch=_reduction_torch("amax"),
        integer=Integer(SAME),
        tflite=_lower_reduction,
    ),
    Operator(
        "ArgMax",
        examples=(
            Example("a = ArgMax<axis=1>(x) y = Cast<to=1>(a)"),
            Example("a = ArgMax<axis=3, keepdims=0>(x) y = Cast<to=1>(a)"),
        ),
        channels=_channels,
        torch=_arg_max_torch,
        integer=Integer(),
        tflite=_lower_arg_max,
        ranks=True,
    ),
)
