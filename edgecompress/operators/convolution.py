"""Conv and ConvTranspose."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.batch_axes import batch_axes
from edgecompress.graph.channel_axes import ChannelAxes, elements, shape
from edgecompress.graph.channel_rules import spatial
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, along, bound_of, or_zero, padded, weighted_sums
from edgecompress.graph.nodes import argument, integer, integers, optional_parameter, parameter
from edgecompress.graph.provenance import label
from edgecompress.lowering import forms
from edgecompress.lowering.context import ACTIVATIONS, Context
from edgecompress.lowering.parts import Parts
from edgecompress.lowering.weight_tensors import bias_tensor, expanded, filter_tensor
from edgecompress.lowering.windows import SAME, VALID, Window, fit_padding, same_pads, window
from edgecompress.operators.checks import all_of, constant_inputs, image_rank, spatial_rank
from edgecompress.operators.example import Example
from edgecompress.operators.images import node_pads, torch_layer, torch_order
from edgecompress.operators.record import (
    Integer,
    Kept,
    MatrixInput,
    Operator,
    Renew,
    Sum,
    TorchFunction,
    View,
    Weights,
    always,
    register,
)

# ---- TFLite ----


def _lower_conv(ctx: Context, layer: Layer) -> None:
    node, x, weight, y = layer.node, argument(layer.node, 0), argument(layer.node, 1), layer.output
    rank, int8 = len(shape(x)), ctx.layer_int8(layer)
    if rank not in (3, 4):
        raise UnsupportedModelError(f"{label(node)} with {rank - 2} spatial dimensions; TFLite supports 1 and 2")
    moved = window(node, rank - 2)
    form = forms.channels_last(rank)
    source = ctx.get(x, form, int8)
    target = ctx.new(y, form, int8)
    out = ctx.tensor(target).shape[1:3]
    source, padding = fit_padding(ctx, source, out, moved)
    options = {
        "padding": padding,
        "strideH": moved.strides[0],
        "strideW": moved.strides[1],
        "dilationHFactor": moved.dilations[0],
        "dilationWFactor": moved.dilations[1],
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


def _lower_conv_transpose(ctx: Context, layer: Layer) -> None:
    """TRANSPOSE_CONV knows SAME and VALID only: other pads are cut from a VALID result, output padding added."""
    node, x, weight, y = layer.node, argument(layer.node, 0), argument(layer.node, 1), layer.output
    rank, int8 = len(shape(x)), ctx.layer_int8(layer)
    kernel, strides, _, pads = moved = window(node, rank - 2)
    form = forms.channels_last(rank)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    if shape(x)[0] > 1 and batch_axes(_graph(node)) is not None and _has_phases(moved, rank):
        return _write_phases(ctx, layer, (source, target), moved)
    size, out = ctx.tensor(source).shape[1:3], ctx.tensor(target).shape[1:3]
    filters = expanded(ctx, filter_tensor(ctx, weight, (1, 2, 3, 0), 0, int8), int8)
    bias = bias_tensor(ctx, layer, int8)
    full = [(n - 1) * s + k for n, s, k in zip(size, strides, kernel)]
    batch, channels = shape(y)[:2]
    before = [p for p, _ in pads]
    same = [same_pads(o, n, k, s, 1) for o, n, k, s in zip(out, size, kernel, strides)]
    exact = all(n == -(-o // s) for n, o, s in zip(size, out, strides))

    def write(result: int, dims: Sequence[int], padding: int) -> None:
        output_shape = ctx.ints([batch, *dims, channels])
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
    whole = ctx.like(target, f"{y.name}/full", (batch, *reach, channels))
    write(whole, reach, VALID)
    ctx.op("SLICE", [whole, ctx.ints([0, *before, 0]), ctx.ints([batch, *out, channels])], [target])


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _has_phases(moved: Window, rank: int) -> bool:
    """Whether `_write_phases` can write it, without more weights than there are."""
    kernel, strides, _, _ = moved
    return (rank == 3 or strides[0] == strides[1]) and all(k % s == 0 for k, s in zip(kernel, strides))


def _write_phases(ctx: Context, layer: Layer, ends: tuple[int, int], moved: Window) -> None:
    """A CONV_2D that makes the s x s results between two inputs as channels, which then move into the image: unlike
    TRANSPOSE_CONV, it is not told the batch size. y[s q + r] = sum over t of x[q - t] w[s t + r].

    Source: Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?" ends: input and output.
    """
    (source, target), (kernel, strides, _, pads), y = ends, moved, layer.output
    size, out, batch, channels = ctx.tensor(source).shape[1:3], ctx.tensor(target).shape[1:3], *shape(y)[:2]
    before, phases = [p for p, _ in pads], math.prod(strides)
    taps = [k // s for k, s in zip(kernel, strides)]
    behind = [max(-(-(p + o) // s) - n, 0) for p, o, s, n in zip(before, out, strides, size)]
    margins = [(t - 1, m) for t, m in zip(taps, behind)]
    read = ctx.pad(source, [(0, 0), *margins, (0, 0)]) if any(map(any, margins)) else source
    rows = [n + m for n, m in zip(size, behind)]
    whole = [n * s for n, s in zip(rows, strides)]
    is_cut = whole != list(out)

    def between(name: str, dims: Sequence[int], *, last: bool) -> int:
        return target if last else ctx.like(target, f"{y.name}/{name}", (batch, *dims))

    int8 = ctx.layer_int8(layer)
    filters = expanded(ctx, filter_tensor(ctx, argument(layer.node, 1), (1, 2, 3, 0), 0, int8, strides), int8)
    made = between("phases", (*rows, phases * channels), last=phases == 1 and not is_cut)
    options = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    ctx.op("CONV_2D", [read, filters, bias_tensor(ctx, layer, int8, phases)], [made], padding=VALID, **options)
    if phases > 1:
        image = between("whole", (*whole, channels), last=not is_cut)
        is_signal = strides[0] != strides[1]
        made = (
            ctx.reshape(made, image) if is_signal else ctx.op("DEPTH_TO_SPACE", [made], [image], blockSize=strides[0])
        )
    if is_cut:
        ctx.op("SLICE", [made, ctx.ints([0, *before, 0]), ctx.ints([batch, *out, channels])], [target])


def _conv_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """In three dimensions: the sum of images' convolutions, one for each plane of the kernel."""
    if len(shape(argument(node, 0))) != 5:
        return None
    x, weight, bias = argument(node, 0), parameter(node, 1), argument(node, 2)
    kernel, strides, dilations, pads = _window(node)
    count, channels, _, *size = shape(x)
    _, outputs, depth, *out = shape(node.outputs[0])
    planes = op.Transpose(x, perm=[0, 2, 1, 3, 4])
    if pads[0] or pads[3]:
        planes = op.Pad(planes, [0, pads[0], 0, 0, 0, 0, pads[3], 0, 0, 0], 0.0)
    attributes = {
        "kernel_shape": kernel[1:], "strides": strides[1:], "dilations": dilations[1:],
        "pads": [*pads[1:3], *pads[4:6]], "group": _groups(node),
    }  # fmt: skip
    total: ir.Value | None = None
    for tap in range(kernel[0]):
        first = tap * dilations[0]
        read = op.Slice(planes, [first], [first + (depth - 1) * strides[0] + 1], [1], [strides[0]])
        image = op.Reshape(read, [count * depth, channels, *size])
        y = op.Conv(image, weight[:, :, tap], bias if tap == 0 else np.zeros(outputs, np.float32), **attributes)
        total = y if total is None else op.Add(total, y)
    assert total is not None
    return [op.Transpose(op.Reshape(total, [count, depth, outputs, *out]), perm=[0, 2, 1, 3, 4])]


def _conv_transpose_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """TFLite's TRANSPOSE_CONV has no groups and no dilation: the same weights [I, O/g, ...] with zeros between."""
    groups, grouped = _groups(node), parameter(node, 1)
    dilations = integers(node, "dilations", [1] * (grouped.ndim - 2))
    if groups == 1 and set(dilations) <= {1}:
        return None
    inputs, outputs = grouped.shape[0] // groups, grouped.shape[1]
    dense = np.zeros((grouped.shape[0], outputs * groups, *grouped.shape[2:]), np.float32)
    for g in range(groups):
        rows = slice(g * inputs, (g + 1) * inputs)
        dense[rows, g * outputs : (g + 1) * outputs] = grouped[rows]
    spans = [d * (k - 1) + 1 for k, d in zip(dense.shape[2:], dilations)]
    spread = np.zeros((*dense.shape[:2], *spans), np.float32)
    spread[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = dense
    attributes = {name: a.value for name, a in node.attributes.items()}
    attributes |= {"group": 1, "kernel_shape": spans, "dilations": [1] * len(spans)}
    return [op.ConvTranspose(argument(node, 0), spread, argument(node, 2), **attributes)]


# ---- channels and bounds ----


def _conv_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """Weights [out, in / groups, ..]. The groups lose the same channels; a depthwise layer loses groups."""
    x, weight, y = argument(node, 0), argument(node, 1), node.outputs[0]
    groups = integer(node, "group", 1)
    inputs, outputs = axes.ids(x, 1).reshape(groups, -1), axes.ids(y, 1).reshape(groups, -1)
    axes.couple(axes.ids(weight, 0), axes.ids(y, 1))
    if groups > 1 and inputs.shape[1] == 1:
        axes.couple(inputs, outputs)
    else:
        axes.couple(inputs, axes.ids(weight, 1)[None])
        axes.couple(outputs, outputs[:1])
    _layer_channels(node, axes)


def _conv_transpose_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """Weights [in, out / groups, ..]."""
    x, weight, y = argument(node, 0), argument(node, 1), node.outputs[0]
    groups = integer(node, "group", 1)
    inputs, outputs = axes.ids(x, 1).reshape(groups, -1), axes.ids(y, 1).reshape(groups, -1)
    axes.couple(axes.ids(weight, 0), axes.ids(x, 1))
    if groups > 1 and inputs.shape[1] == 1:
        axes.couple(inputs, outputs)
        axes.fix(axes.ids(weight, 1), f"{label(node)} has one input channel in each group")
    else:
        axes.couple(outputs, axes.ids(weight, 1)[None])
        axes.couple(inputs, inputs[:1])
    _layer_channels(node, axes)


def _layer_channels(node: ir.Node, axes: ChannelAxes) -> None:
    x, weight, y = argument(node, 0), argument(node, 1), node.outputs[0]
    axes.couple(axes.ids(x, 0), axes.ids(y, 0))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        axes.couple(axes.ids(argument(node, 2), 0), axes.ids(y, 1))
    for axis in range(2, len(shape(x))):
        spatial(axes, node, axis, x, weight, y)


def _conv_bounds(node: ir.Node, known: Known) -> Interval:
    """Each channel of the input anywhere in its interval (or zero, where there are pads), at each tap on its own."""
    x, weight, bias = bound_of(known, 0), bound_of(known, 1).low, bound_of(known, 2)
    channels, groups = shape(argument(node, 0))[1], integer(node, "group", 1)
    line = along(or_zero(x) if padded(node) else x, 1, channels)
    taps = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return weighted_sums(taps, line, bias, (1, -1, *(1,) * (x.low.ndim - 2)))


def _renew_groups(node: ir.Node, kept: Kept, renew: Renew) -> None:
    """A depthwise layer has fewer groups."""
    groups = integer(node, "group", 1)
    if groups > 1 and shape(argument(node, 0))[1] == groups:
        node.attributes["group"] = ir.AttrInt64("group", int(kept(argument(node, 0), 1).sum()))


# ---- as a matrix product ----


def _conv_matrix(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1)


def _conv_windows(node: ir.Node, x: np.ndarray) -> np.ndarray:
    kernel, strides, dilations, pads = _window(node)
    return _windows(node, x, kernel, strides, dilations, pads)


def _transpose_matrix(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """[in, out / group, kernel...]: as the equal Conv's, with the kernel turned round."""
    spatial = tuple(range(3, weight.ndim + 1))
    grouped = weight.reshape(_groups(node), -1, *weight.shape[1:])
    turned = np.flip(grouped.swapaxes(1, 2), spatial)
    return turned.reshape(turned.shape[0] * turned.shape[1], -1)


def _transpose_windows(node: ir.Node, x: np.ndarray) -> np.ndarray:
    """ConvTranspose is a Conv of stride 1 over its input with zeros put between the elements."""
    kernel, strides, dilations, pads = _window(node)
    rank = len(kernel)
    spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], strides))), x.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, s) for s in strides))] = x
    extra = list(node.attributes.get_ints("output_padding", [0] * rank))
    reach = [d * (k - 1) for k, d in zip(kernel, dilations)]
    around = [r - p + e for r, p, e in zip(reach + reach, pads, [0] * rank + extra)]
    return _windows(node, spread, kernel, [1] * rank, dilations, around)


def _windows(
    node: ir.Node, x: np.ndarray, kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]
) -> np.ndarray:
    """[n, channels, size...] -> [n, positions..., groups, channels / group, kernel...]; pads < 0 cut."""
    rank = len(kernel)
    ends = list(zip(pads[:rank], pads[rank:]))
    padded = np.pad(x, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in ends)])
    inside = (slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(padded.shape[2:], ends))
    padded = padded[(slice(None), slice(None), *inside)]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    seen = np.moveaxis(seen[(slice(None), slice(None), *steps)], 1, 1 + rank)
    return seen.reshape(*seen.shape[: 1 + rank], _groups(node), -1, *kernel)


def _window(node: ir.Node) -> tuple[list[int], list[int], list[int], list[int]]:
    """kernel, strides, dilations, pads (begins, then ends): explicit in a canonical model but for 1 and 0."""
    a = node.attributes
    kernel = list(a.get_ints("kernel_shape", ()))
    one = [1] * len(kernel)
    pads = list(a.get_ints("pads", 2 * [0] * len(kernel)))
    return kernel, list(a.get_ints("strides", one)), list(a.get_ints("dilations", one)), pads


def _groups(node: ir.Node) -> int:
    return integer(node, "group", 1)


# ---- torch and costs ----


def _conv_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    before, after = node_pads(node)
    convolve = functools.partial(
        torch_layer("conv", len(before)),
        stride=integers(node, "strides"),
        dilation=integers(node, "dilations"),
        groups=integer(node, "group", 1),
    )
    if before == after:
        return functools.partial(convolve, padding=tuple(before))
    amounts = torch_order(before, after)
    return lambda x, weight, bias: convolve(F.pad(x, amounts), weight, bias)


def _conv_transpose_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    before, after = node_pads(node)
    convolve = functools.partial(
        torch_layer("conv_transpose", len(before)),
        stride=integers(node, "strides"),
        output_padding=integers(node, "output_padding"),
        groups=integer(node, "group", 1),
        dilation=integers(node, "dilations"),
    )
    if before == after:
        return functools.partial(convolve, padding=tuple(before))
    amounts = torch_order([-n for n in before], [-n for n in after])
    return lambda x, weight, bias: F.pad(convolve(x, weight, bias), amounts)


def _conv_macs(node: ir.Node) -> int:
    """Each output: input channels / groups * kernel; that is the weight [out, in / groups, ..] without
    `out`.
    """
    weight = shape(argument(node, 1))
    return elements(node.outputs[0]) * math.prod(weight[1:])


def _conv_transpose_macs(node: ir.Node) -> int:
    """Each input is multiplied by out / groups * kernel weights, [in, out / groups, ..]."""
    return elements(argument(node, 0)) * math.prod(shape(argument(node, 1))[1:])


# ---- the records ----

IMAGE, LINE, VOLUME = {"x": (1, 4, 7, 6)}, {"x": (1, 4, 9)}, {"x": (1, 3, 4, 5, 6)}


def _has_integer_kernel(node: ir.Node) -> bool:
    return optional_parameter(node, 1) is not None and len(shape(argument(node, 0))) < 5


register(
    Operator(
        "Conv",
        examples=(
            Example("y = Conv(x, w, b)", IMAGE, {"w": (6, 4, 3, 3), "b": (6,)}),
            Example("y = Conv<pads=[1,0,2,1], strides=[2,1], dilations=[1,2]>(x, w)", IMAGE, {"w": (6, 4, 3, 3)}),
            Example("y = Conv<group=4, pads=[1,1,1,1]>(x, w, b)", IMAGE, {"w": (4, 1, 3, 3), "b": (4,)}),
            Example("y = Conv<group=2>(x, w, b)", IMAGE, {"w": (6, 2, 3, 3), "b": (6,)}),
            Example("y = Conv<pads=[1,1]>(x, w, b)", LINE, {"w": (6, 4, 3), "b": (6,)}),
            Example(
                "y = Conv<strides=[2,1,1], pads=[1,0,1,0,0,1]>(x, w, b)", VOLUME, {"w": (4, 3, 2, 3, 2), "b": (4,)}
            ),
        ),
        accepts=all_of(constant_inputs(1, 2), spatial_rank),
        parts=_conv_parts,
        integer_parts=_conv_parts,
        channels=_conv_channels,
        bounds=_conv_bounds,
        change=_renew_groups,
        torch=_conv_torch,
        weights=Weights(
            learned=(1, 2),
            matrices=(MatrixInput(1, 0, 1),),
            view=View(_conv_matrix, _conv_windows, channels_last=False),
        ),
        integer=Integer(weight=1, accepts=_has_integer_kernel, sum=Sum("product", axis=1), int16=always),
        tflite=_lower_conv,
        layout="channels",
        macs=_conv_macs,
    ),
    Operator(
        "ConvTranspose",
        examples=(
            Example("y = ConvTranspose<strides=[2,2]>(x, w, b)", IMAGE, {"w": (4, 6, 3, 3), "b": (6,)}),
            Example(
                "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w, b)",
                IMAGE,
                {"w": (4, 6, 3, 3), "b": (6,)},
            ),
            Example("y = ConvTranspose<group=2>(x, w, b)", IMAGE, {"w": (4, 3, 3, 3), "b": (6,)}),
            Example("y = ConvTranspose<dilations=[2,1]>(x, w, b)", IMAGE, {"w": (4, 6, 3, 2), "b": (6,)}),
        ),
        accepts=all_of(constant_inputs(1, 2), image_rank),
        parts=_conv_transpose_parts,
        integer_parts=_conv_transpose_parts,
        channels=_conv_transpose_channels,
        change=_renew_groups,
        torch=_conv_transpose_torch,
        weights=Weights(
            learned=(1, 2),
            matrices=(MatrixInput(1, 1, 0),),
            view=View(_transpose_matrix, _transpose_windows, channels_last=False),
        ),
        integer=Integer(weight=1, weight_axis=1, accepts=_has_integer_kernel, sum=Sum("product", axis=1), int16=always),
        tflite=_lower_conv_transpose,
        layout="channels",
        macs=_conv_transpose_macs,
    ),
)
