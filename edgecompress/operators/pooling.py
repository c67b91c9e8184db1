"""MaxPool, AveragePool and their forms over the whole image."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import INTEGER_RANGE, Quantization, quantization
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.channel_rules import images
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, bound_of, or_zero, over_image, padded
from edgecompress.graph.nodes import argument, integer, integers
from edgecompress.graph.provenance import label
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.lowering.parts import Parts
from edgecompress.lowering.windows import VALID, Pads, fit_padding, window
from edgecompress.operators.checks import all_of, one_output, spatial_rank
from edgecompress.operators.example import Example
from edgecompress.operators.images import node_pads, torch_layer, torch_order
from edgecompress.operators.record import SAME, Integer, Operator, Sum, TorchFunction, always, register

if TYPE_CHECKING:
    from torch import Tensor

LOWEST = float(np.finfo(np.float32).min)

# ---- TFLite ----


def _lower_pool(ctx: Context, layer: Layer) -> None:
    """TFLite's pools never count padding. Padding that SAME can't say is written as PAD (maximum: of the
    lowest value), and an average that must not count it is corrected by a constant factor per position."""
    node, x, y = layer.node, argument(layer.node, 0), layer.output
    rank, int8, maximum = len(shape(x)), ctx.layer_int8(layer), layer.node.op_type == "MaxPool"
    if rank not in (3, 4) or len(node.outputs) > 1:
        raise UnsupportedModelError(f"{label(node)} of rank {rank} with {len(node.outputs)} outputs can't be converted")
    moved = window(node, rank - 2)
    kernel, strides, _, pads = moved
    form = forms.channels_last(rank)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    size, out = ctx.tensor(source).shape[1:3], ctx.tensor(target).shape[1:3]
    fill = _lowest(x, int8) if maximum else 0.0
    padded, padding = fit_padding(ctx, source, out, moved, fill)
    counted = integer(node, "count_include_pad") == 1
    correction = None
    if not maximum and padding == VALID and padded != source and not counted:
        correction = kernel[0] * kernel[1] / _window_sizes(size, out, kernel, strides, pads)
    if not maximum and padding != VALID and counted:
        amounts = [(b, max((o - 1) * s + k - n - b, 0)) for n, o, k, s, (b, _) in zip(size, out, kernel, strides, pads)]
        padded, padding = ctx.pad(source, [(0, 0), *amounts, (0, 0)]), VALID
    kind = "MAX_POOL_2D" if maximum else "AVERAGE_POOL_2D"
    if correction is None:
        _write_pool(ctx, kind, padded, target, kernel, strides, padding)
        return
    mean = ctx.like(source, f"{y.name}/mean", ctx.tensor(target).shape)
    _write_pool(ctx, kind, padded, mean, kernel, strides, padding)
    factor, q = correction[None, :, :, None].astype(np.float32), None
    if int8:
        dtype = ctx.tensor(source).dtype
        steps = INTEGER_RANGE[dtype][1]
        q = Quantization(np.array([factor.max() / steps], np.float32), np.zeros(1, np.int32), None, dtype)
        factor = q.quantize(factor)
    ctx.op("MUL", [mean, ctx.constant(factor, q)], [target])


def _lowest(x: ir.Value, int8: bool) -> float:
    """The real value of the smallest stored number."""
    q = quantization(x) if int8 else None
    return LOWEST if q is None else float(q.dequantize(np.array([INTEGER_RANGE[q.dtype][0]]))[0])


def _window_sizes(
    size: Sequence[int], out: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Pads
) -> np.ndarray:
    """float [out_h, out_w]: how many elements of each window lie inside the image."""
    counts = []
    for n, o, k, s, (before, _) in zip(size, out, kernel, strides, pads):
        start = np.arange(o) * s - before
        counts.append(np.minimum(start + k, n) - np.maximum(start, 0))
    return np.outer(*counts).astype(np.float64)


def _lower_global_pool(ctx: Context, layer: Layer) -> None:
    """One window over the whole image: a kernel that every runtime, TensorFlow Lite Micro too, has optimised."""
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    form = forms.channels_last(len(shape(x)))
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    kind = "AVERAGE_POOL_2D" if layer.node.op_type == "GlobalAveragePool" else "MAX_POOL_2D"
    height, width = ctx.tensor(source).shape[1:3]
    _write_pool(ctx, kind, source, target, [height, width], [height, width], VALID)


def _write_pool(
    ctx: Context, kind: str, source: int, target: int, kernel: Sequence[int], strides: Sequence[int], padding: int
) -> int:
    """The pool; MEAN for an average over the whole image that changes scale, which AVERAGE_POOL_2D can't."""
    before, after = ctx.tensor(source), ctx.tensor(target)
    rescales = before.quantization is not None and not before.quantization.same_as(after.quantization)
    if rescales and kind == "AVERAGE_POOL_2D" and tuple(kernel) == before.shape[1:3]:
        return ctx.op("MEAN", [source, ctx.ints([1, 2])], [target], keepDims=True)
    return ctx.op(
        kind,
        [source],
        [target],
        padding=padding,
        strideH=strides[0],
        strideW=strides[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
    )


# ---- with other operators: three dimensions, and dilation ----


def _pool_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """One axis after the other: the largest, or the sum, of slices that lie a step apart."""
    if _has_kernel(node):
        return None
    x, out, maximum = argument(node, 0), shape(node.outputs[0]), node.op_type == "MaxPool"
    dims, rank = list(shape(x)), len(out) - 2
    kernel, one = integers(node, "kernel_shape"), [1] * rank
    strides, dilations = integers(node, "strides", one), integers(node, "dilations", one)
    pads = integers(node, "pads", [0] * 2 * rank)
    counted = bool(integer(node, "count_include_pad"))
    shares = np.ones((), np.float64)
    for axis in range(2, len(out)):
        i = axis - 2
        n, o, k, s, d, before, after = (
            dims[axis],
            out[axis],
            kernel[i],
            strides[i],
            dilations[i],
            pads[i],
            pads[i + rank],
        )
        rest = max((o - 1) * s + (k - 1) * d + 1 - n - before, 0)
        line = op.Reshape(x, [math.prod(dims[:axis]), n, math.prod(dims[axis + 1 :])])
        if before or rest:
            line = op.Pad(line, [0, before, 0, 0, rest, 0], LOWEST if maximum else 0.0)
        combine = op.Max if maximum else op.Add
        taps = [op.Slice(line, [j * d], [j * d + (o - 1) * s + 1], [1], [s]) for j in range(k)]
        x = functools.reduce(combine, taps)
        dims[axis] = o
        places = np.arange(o)[:, None] * s + np.arange(k) * d - before
        low, high = (-before, n + after) if counted else (0, n)
        shares = shares[..., None] / np.maximum(((places >= low) & (places < high)).sum(1), 1)
    y = op.Reshape(x, list(out))
    return [y if maximum else op.Mul(y, shares.astype(np.float32))]


def _has_kernel(node: ir.Node) -> bool:
    """Whether TFLite has it: one or two dimensions, and no dilation."""
    return len(shape(argument(node, 0))) in (3, 4) and set(integers(node, "dilations")) <= {1}


# ---- bounds and int8 ----


def _pool_bounds(node: ir.Node, known: Known) -> Interval:
    x = _image_bounds(node, known)
    counted = node.op_type == "AveragePool" and integer(node, "count_include_pad")
    return or_zero(x) if counted and padded(node) else x


def _image_bounds(node: ir.Node, known: Known) -> Interval:
    return over_image(bound_of(known, 0), len(shape(node.outputs[0])))


def _averages_all(node: ir.Node) -> bool:
    """An AveragePool over the whole image is a mean, and a mean rescales. Its values spread so much less
    than its inputs that sharing their scale would cost several bits."""
    size = shape(argument(node, 0))
    kernel, pads = integers(node, "kernel_shape"), integers(node, "pads")
    return tuple(kernel) == size[2:] and not any(pads)


def _has_integer_kernel(node: ir.Node) -> bool:
    return len(node.outputs) == 1 and _has_kernel(node)


# ---- torch ----


def _max_pool_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    before, after = node_pads(node)
    kernel = integers(node, "kernel_shape")
    pool = functools.partial(
        torch_layer("max_pool", len(kernel)),
        kernel_size=kernel,
        stride=integers(node, "strides"),
        dilation=integers(node, "dilations"),
    )
    if before == after and all(2 * n <= k for n, k in zip(before, kernel)):  # torch refuses larger pads
        return functools.partial(pool, padding=tuple(before))
    amounts = torch_order(before, after)
    return lambda x: pool(F.pad(x, amounts, value=float("-inf")))


def _average_pool_torch(node: ir.Node) -> TorchFunction:
    """Any padding and dilation: a sum over the window, divided by how much of it counts."""
    import torch
    from torch.nn import functional as F

    before, after = node_pads(node)
    kernel, strides = integers(node, "kernel_shape"), integers(node, "strides")
    dilations, include = integers(node, "dilations"), bool(integer(node, "count_include_pad"))
    if before == after and set(dilations) == {1} and all(2 * n <= k for n, k in zip(before, kernel)):
        return functools.partial(
            torch_layer("avg_pool", len(kernel)),
            kernel_size=kernel,
            stride=strides,
            padding=before,
            count_include_pad=include,
        )
    amounts = torch_order(before, after)
    window = functools.partial(torch_layer("conv", len(kernel)), stride=strides, dilation=dilations)
    counted = F.pad(torch.ones(1, 1, *shape(argument(node, 0))[2:]), amounts, value=float(include))
    ones = torch.ones(1, 1, *kernel)
    parts = window(counted, ones)

    def pool(x: Tensor) -> Tensor:
        padded = F.pad(x, amounts).flatten(0, 1).unsqueeze(1)
        sums = window(padded, ones.to(x.device)) / parts.to(x.device)
        return sums.reshape(*x.shape[:2], *sums.shape[2:])

    return pool


def _global_average_torch(node: ir.Node) -> TorchFunction:
    return lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)


def _global_max_torch(node: ir.Node) -> TorchFunction:
    return lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True)


# ---- the records ----

IMAGE, VOLUME = {"x": (1, 4, 7, 6)}, {"x": (1, 3, 4, 5, 6)}


register(
    Operator(
        "MaxPool",
        examples=(
            Example("y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", IMAGE),
            Example("y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)", IMAGE),
            Example("y = MaxPool<kernel_shape=[3], strides=[2]>(x)", {"x": (1, 4, 9)}),
            Example("y = MaxPool<kernel_shape=[2,2], dilations=[2,1], pads=[1,0,1,0]>(x)", IMAGE),
            Example("y = MaxPool<kernel_shape=[2,2,2], strides=[1,2,1]>(x)", VOLUME),
        ),
        accepts=all_of(one_output, spatial_rank),
        parts=_pool_parts,
        channels=images,
        bounds=_pool_bounds,
        homogeneous=True,
        torch=_max_pool_torch,
        integer=Integer(SAME, accepts=_has_integer_kernel, int16=always),
        tflite=_lower_pool,
        layout="channels",
    ),
    Operator(
        "AveragePool",
        examples=(
            Example("y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x)", IMAGE),
            Example("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)", IMAGE),
            Example("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)", IMAGE),
            Example("y = AveragePool<kernel_shape=[7,6]>(x)", IMAGE),
            Example("y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1, count_include_pad=1>(x)", IMAGE),
            Example("y = AveragePool<kernel_shape=[2,2,3], pads=[1,0,1,0,1,1]>(x)", VOLUME),
        ),
        accepts=spatial_rank,
        parts=_pool_parts,
        channels=images,
        bounds=_pool_bounds,
        homogeneous=True,
        torch=_average_pool_torch,
        integer=Integer(
            SAME, accepts=_has_integer_kernel, frees=_averages_all, computes=True, sum=Sum("mean"), int16=always
        ),
        tflite=_lower_pool,
        layout="channels",
    ),
    Operator(
        "GlobalAveragePool",
        examples=(Example("y = GlobalAveragePool(x)", IMAGE),),
        channels=images,
        bounds=_image_bounds,
        homogeneous=True,
        torch=_global_average_torch,
        integer=Integer(sum=Sum("mean"), int16=always),
        tflite=_lower_global_pool,
        layout="channels",
    ),
    Operator(
        "GlobalMaxPool",
        examples=(Example("y = GlobalMaxPool(x)", IMAGE),),
        channels=images,
        bounds=_image_bounds,
        homogeneous=True,
        torch=_global_max_torch,
        integer=Integer(SAME, int16=always),
        tflite=_lower_global_pool,
        layout="channels",
    ),
)
