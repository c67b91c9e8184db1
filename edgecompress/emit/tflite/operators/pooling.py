"""MaxPool, AveragePool and their global forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.emit.tflite.operators.convolution import VALID, fit_padding, window
from edgecompress.emit.tflite.registry import lowering
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import Quantization, quantization
from edgecompress.graph.fusion import Layer
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context, shape

LOWEST = float(np.finfo(np.float32).min)


@lowering("MaxPool", "AveragePool")
def pool(ctx: Context, layer: Layer) -> None:
    """TFLite's pools never count padding. Padding that SAME can't say is written as PAD (maximum: of the
    lowest value), and an average that must not count it is corrected by a constant factor per position."""
    node, x, y = layer.node, layer.node.inputs[0], layer.output
    rank, int8, maximum = len(shape(x)), ctx.layer_int8(layer), layer.node.op_type == "MaxPool"
    if rank not in (3, 4) or len(node.outputs) > 1:
        raise UnsupportedModelError(f"node {node.name!r}: {node.op_type} of rank {rank}, {len(node.outputs)} outputs")
    kernel, strides, dilations, pads = window(node, rank - 2)
    if dilations != [1, 1]:
        raise UnsupportedModelError(f"node {node.name!r}: TFLite has no dilated {node.op_type}; use dilations of 1")
    form = forms.channels_last(rank)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    size, out = ctx.tensor(source).shape[1:3], ctx.tensor(target).shape[1:3]
    fill = lowest(x, int8) if maximum else 0.0
    padded, padding = fit_padding(ctx, source, out, kernel, strides, dilations, pads, fill)
    counted = "count_include_pad" in node.attributes and node.attributes["count_include_pad"].as_int() == 1
    correction = None
    if not maximum and padding == VALID and padded != source and not counted:
        correction = kernel[0] * kernel[1] / window_sizes(size, out, kernel, strides, pads)
    if not maximum and padding != VALID and counted:
        amounts = [(b, max((o - 1) * s + k - n - b, 0)) for n, o, k, s, (b, _) in zip(size, out, kernel, strides, pads)]
        padded, padding = ctx.pad(source, [(0, 0), *amounts, (0, 0)]), VALID
    kind = "MAX_POOL_2D" if maximum else "AVERAGE_POOL_2D"
    if correction is None:
        write_pool(ctx, kind, padded, target, kernel, strides, padding)
        return
    mean = ctx.like(source, f"{y.name}/mean", ctx.tensor(target).shape)
    write_pool(ctx, kind, padded, mean, kernel, strides, padding)
    factor, q = correction[None, :, :, None].astype(np.float32), None
    if int8:
        q = Quantization(np.array([factor.max() / 127], np.float32), np.zeros(1, np.int32))
        factor = q.quantize(factor)
    ctx.op("MUL", [mean, ctx.constant(factor, q)], [target])


def lowest(x: ir.Value, int8: bool) -> float:
    """The real value of the smallest stored number."""
    q = quantization(x) if int8 else None
    return LOWEST if q is None else float(q.dequantize(np.array([-128]))[0])


def window_sizes(size, out, kernel, strides, pads) -> np.ndarray:
    """float [out_h, out_w]: how many elements of each window lie inside the image."""
    counts = []
    for n, o, k, s, (before, _) in zip(size, out, kernel, strides, pads):
        start = np.arange(o) * s - before
        counts.append(np.minimum(start + k, n) - np.maximum(start, 0))
    return np.outer(*counts).astype(np.float64)


@lowering("GlobalAveragePool", "GlobalMaxPool")
def global_pool(ctx: Context, layer: Layer) -> None:
    """One window over the whole image: a kernel that every runtime, TensorFlow Lite Micro too, has optimised."""
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    form = forms.channels_last(len(shape(x)))
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    kind = "AVERAGE_POOL_2D" if layer.node.op_type == "GlobalAveragePool" else "MAX_POOL_2D"
    height, width = ctx.tensor(source).shape[1:3]
    write_pool(ctx, kind, source, target, [height, width], [height, width], VALID)


def write_pool(
    ctx: Context, kind: str, source: int, target: int, kernel: Sequence[int], strides: Sequence[int], padding: int
) -> int:
    """The pool; MEAN for an average over the whole image that changes scale, which AVERAGE_POOL_2D can't."""
    before, after = ctx.tensor(source), ctx.tensor(target)
    if before.quantization is not None and not before.quantization.same_as(after.quantization):
        if kind == "AVERAGE_POOL_2D" and tuple(kernel) == before.shape[1:3]:
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
