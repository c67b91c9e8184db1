"""Conv and ConvTranspose: CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.emit.tflite.registry import lowering
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import quantization
from edgecompress.graph.fusion import Layer
from edgecompress.lowering import forms
from edgecompress.lowering.context import ACTIVATIONS, Context, shape

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
Window = list[tuple[int, int]]


def ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return list(default) if attribute is None else list(attribute.as_ints())


def window(node: ir.Node, spatial: int) -> tuple[list[int], list[int], list[int], Window]:
    """(kernel, strides, dilations, pads as (before, after)), each of length 2; a 1-D window has height 1."""
    kernel = ints(node, "kernel_shape", [])
    strides, dilations = ints(node, "strides", [1] * spatial), ints(node, "dilations", [1] * spatial)
    flat = ints(node, "pads", [0] * 2 * spatial)
    pads = list(zip(flat[:spatial], flat[spatial:]))
    if spatial == 1:
        return [1, *kernel], [1, *strides], [1, *dilations], [(0, 0), *pads]
    return kernel, strides, dilations, pads


def same_pads(size: int, out: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding that TFLite computes for SAME: total = max((out - 1) * stride + extent - size, 0), less in front."""
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def fit_padding(
    ctx: Context,
    source: int,
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Window,
    fill: float = 0.0,
) -> tuple[int, int]:
    """(source, padding scheme): SAME or VALID where they say what `pads` says, else an explicit pad and VALID."""
    size = ctx.tensor(source).shape[1:3]
    read = [(o - 1) * s + (k - 1) * d + 1 for o, k, s, d in zip(out, kernel, strides, dilations)]
    # rows that the last window does not reach need no padding
    needed = [(before, max(r - n - before, 0)) for r, n, (before, _) in zip(read, size, pads)]
    if needed == [(0, 0), (0, 0)]:
        return source, VALID
    same = [same_pads(*args) for args in zip(size, out, kernel, strides, dilations)]
    reachable = [o == -(-n // s) for o, n, s in zip(out, size, strides)]
    if needed == same and all(reachable):
        return source, SAME
    return ctx.pad(source, [(0, 0), *needed, (0, 0)], fill), VALID


@lowering("Conv")
def conv(ctx: Context, layer: Layer) -> None:
    node, x, weight, y = layer.node, layer.node.inputs[0], layer.node.inputs[1], layer.output
    rank, int8 = len(shape(x)), ctx.layer_int8(layer)
    if rank not in (3, 4):
        raise UnsupportedModelError(f"node {node.name!r}: Conv with {rank - 2} spatial dimensions; TFLite has 1 and 2")
    kernel, strides, dilations, pads = window(node, rank - 2)
    form = forms.channels_last(rank)
    source = ctx.get(x, form, int8)
    target = ctx.new(y, form, int8)
    out = ctx.tensor(target).shape[1:3]
    source, padding = fit_padding(ctx, source, out, kernel, strides, dilations, pads)
    options = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": ACTIVATIONS[layer.activation_kind],
    }
    channels, out_channels = shape(x)[1], shape(y)[1]
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if groups == channels and groups > 1:
        filters = filter_tensor(ctx, weight, (1, 2, 3, 0), 3, int8)
        options["depthMultiplier"] = out_channels // channels
        kind = "DEPTHWISE_CONV_2D"
    else:
        filters = filter_tensor(ctx, weight, (0, 2, 3, 1), 0, int8)
        filters = filters if groups == 1 else expanded(ctx, filters, int8)
        kind = "CONV_2D"
    ctx.op(kind, [source, filters, bias_tensor(ctx, layer, int8)], [target], **options)


def filter_tensor(ctx: Context, weight: ir.Value, order: Sequence[int], axis: int, int8: bool) -> int:
    """Constant filter [O, I, kh, kw] in TFLite order; `axis` is the TFLite dimension of the output channels.

    An int8 filter in a float layer makes it a hybrid one: LiteRT quantises the input as it runs.
    """
    array, q = ctx.array(weight), quantization(weight)
    if array.ndim == 3:
        array = array[:, :, None, :]
    if q is None:
        return ctx.constant(array.transpose(order), name=weight.name or "")
    if q.dtype == ir.DataType.FLOAT16:
        return ctx.half(np.ascontiguousarray(array.transpose(order)), weight.name or "")
    return ctx.constant(q.quantize(array).transpose(order), q, weight.name or "", axis)


def expanded(ctx: Context, filters: int, int8: bool) -> int:
    """The filter as float where the operator has no hybrid kernel: int8 in the file, DEQUANTIZE once at load."""
    tensor = ctx.tensor(filters)
    if int8 or tensor.dtype != ir.DataType.INT8:
        return filters
    target = ctx.temporary(f"{tensor.name}/float", tensor.shape, ir.DataType.FLOAT)
    return ctx.op("DEQUANTIZE", [filters], [target])


def bias_tensor(ctx: Context, layer: Layer, int8: bool) -> int:
    """float32 or, in an int8 layer, int32 constant [channels]; ingest gives every Conv and Gemm a bias."""
    bias = layer.bias
    q = quantization(bias)
    array = ctx.array(bias)
    if int8:
        return ctx.constant(q.quantize(array), q, bias.name or "")
    if q is not None and q.dtype == ir.DataType.FLOAT16:
        return ctx.half(array, bias.name or "")
    return ctx.constant(array, name=bias.name or "")


@lowering("ConvTranspose")
def conv_transpose(ctx: Context, layer: Layer) -> None:
    """TRANSPOSE_CONV knows SAME and VALID only: other pads are cut from a VALID result, output padding added."""
    node, x, weight, y = layer.node, layer.node.inputs[0], layer.node.inputs[1], layer.output
    rank, int8 = len(shape(x)), ctx.layer_int8(layer)
    kernel, strides, dilations, pads = window(node, rank - 2)
    if dilations != [1, 1] or rank not in (3, 4):
        raise UnsupportedModelError(
            f"node {node.name!r}: ConvTranspose of rank {rank} with dilations={dilations}: TFLite has it for 1-D and "
            "2-D images without dilation; use a Resize and a Conv"
        )
    form = forms.channels_last(rank)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    size, out = ctx.tensor(source).shape[1:3], ctx.tensor(target).shape[1:3]
    filters = expanded(ctx, filter_tensor(ctx, weight, (1, 2, 3, 0), 0, int8), int8)
    bias = bias_tensor(ctx, layer, int8)
    full = [(n - 1) * s + k for n, s, k in zip(size, strides, kernel)]
    before = [p for p, _ in pads]
    same = [same_pads(o, n, k, s, 1) for o, n, k, s in zip(out, size, kernel, strides)]
    exact = all(n == -(-o // s) for n, o, s in zip(size, out, strides))

    def write(result: int, dims: Sequence[int], padding: int) -> None:
        output_shape = ctx.ints([1, *dims, shape(y)[1]])
        ctx.op(
            "TRANSPOSE_CONV",
            [output_shape, filters, source, bias],
            [result],
            padding=padding,
            strideH=strides[0],
            strideW=strides[1],
        )

    if exact and before == [p for p, _ in same]:
        return write(target, out, SAME)
    if before == [0, 0] and all(o <= f for o, f in zip(out, full)) and out == tuple(full):
        return write(target, out, VALID)
    # VALID computes all `full` rows; a longer output shape makes the kernel append rows of bias alone
    reach = [max(f, p + o) for f, p, o in zip(full, before, out)]
    whole = ctx.like(target, f"{y.name}/full", (1, *reach, shape(y)[1]))
    write(whole, reach, VALID)
    ctx.op("SLICE", [whole, ctx.ints([0, *before, 0]), ctx.ints([1, *out, shape(y)[1]])], [target])
