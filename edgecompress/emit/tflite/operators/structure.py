"""Operators that move, cut or join data and compute nothing."""

from __future__ import annotations

import numpy as np

from edgecompress.emit.tflite.operators.reduction import integer
from edgecompress.emit.tflite.registry import lowering
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.fusion import Layer
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context, shape


@lowering("Transpose")
def transpose(ctx: Context, layer: Layer) -> None:
    """Moves nothing: the same tensor, its axes renamed."""
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    rank = len(shape(x))
    attribute = layer.node.attributes.get("perm")
    permutation = list(range(rank))[::-1] if attribute is None else list(attribute.as_ints())
    form = ctx.form(x)
    ctx.bind(y, ctx.get(x, form, int8), forms.transposed(form, permutation), int8)


@lowering("Reshape")
def reshape(ctx: Context, layer: Layer) -> None:
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    form = ctx.form(x)
    result = forms.reshaped(shape(x), shape(y), form)
    if result is None:
        form, result = forms.identity(len(shape(x))), forms.identity(len(shape(y)))
    ctx.reshape(ctx.get(x, form, int8), ctx.new(y, result, int8))


@lowering("Concat")
def concat(ctx: Context, layer: Layer) -> None:
    y, int8 = layer.output, ctx.layer_int8(layer)
    rank = len(shape(y))
    form = ctx.common_form(list(layer.node.inputs), rank)
    axis = form.index(integer(layer, "axis", 0) % rank)
    ctx.op("CONCATENATION", [ctx.get(v, form, int8) for v in layer.node.inputs], [ctx.new(y, form, int8)], axis=axis)


@lowering("Split")
def split(ctx: Context, layer: Layer) -> None:
    x, int8, form = layer.node.inputs[0], ctx.layer_int8(layer), ctx.form(layer.node.inputs[0])
    axis = integer(layer, "axis", 0) % len(shape(x))
    sizes = [shape(y)[axis] for y in layer.node.outputs]
    source = ctx.get(x, form, int8)
    targets = [ctx.new(y, form, int8) for y in layer.node.outputs]
    position = ctx.constant(np.array(form.index(axis), np.int32))
    if len(set(sizes)) == 1:
        ctx.op("SPLIT", [position, source], targets, numSplits=len(targets))
    else:
        ctx.op("SPLIT_V", [source, ctx.ints(sizes), position], targets, numSplits=len(targets))


@lowering("Slice")
def slice_(ctx: Context, layer: Layer) -> None:
    """SLICE for steps of 1, STRIDED_SLICE otherwise; a negative step is a REVERSE_V2 first."""
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    dims, rank, form = shape(x), len(shape(x)), ctx.form(layer.node.inputs[0])
    starts, ends = (ctx.array(v).ravel().tolist() for v in layer.node.inputs[1:3])
    given = [ctx.array(v) for v in layer.node.inputs[3:5]] + [None, None]
    axes = list(range(len(starts))) if given[0] is None else [int(a) % rank for a in given[0].ravel()]
    steps = [1] * len(starts) if given[1] is None else [int(s) for s in given[1].ravel()]
    ranges = {a: range(dims[a])[slice(_bound(s), _bound(e), k)] for s, e, a, k in zip(starts, ends, axes, steps)}
    source = ctx.get(x, form, int8)
    backwards = [i for i, a in enumerate(form) if a in ranges and ranges[a].step < 0]
    if backwards:
        flipped = ctx.like(source, f"{y.name}/reversed", ctx.tensor(source).shape)
        source = ctx.op("REVERSE_V2", [source, ctx.ints(backwards)], [flipped])
    begin, size, step = [], [], []
    for a in form:
        r = ranges.get(a, range(1 if a is None else dims[a]))
        first = r.start if r.step > 0 else dims[a] - 1 - r.start
        begin.append(first)
        size.append(len(r))
        step.append(abs(r.step))
    target = ctx.new(y, form, int8)
    if max(step, default=1) == 1:
        ctx.op("SLICE", [source, ctx.ints(begin), ctx.ints(size)], [target])
    else:
        end = [b + (n - 1) * s + 1 for b, n, s in zip(begin, size, step)]
        ctx.op("STRIDED_SLICE", [source, ctx.ints(begin), ctx.ints(end), ctx.ints(step)], [target])


def _bound(index: int) -> int | None:
    """ONNX writes "to the very end" as a huge number, also when stepping backwards."""
    return None if index < -(2**31) + 2 else int(index)


@lowering("Pad")
def pad(ctx: Context, layer: Layer) -> None:
    node, x, y, int8 = layer.node, layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    rank, form = len(shape(x)), ctx.form(layer.node.inputs[0])
    amounts = [int(n) for n in ctx.array(node.inputs[1]).ravel()]
    given = ctx.array(node.inputs[3]) if len(node.inputs) > 3 else None
    axes = list(range(rank)) if given is None else [int(a) % rank for a in given.ravel()]
    pads = {a: (amounts[i], amounts[i + len(axes)]) for i, a in enumerate(axes)}
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    if mode not in ("constant", "reflect") or min(amounts) < 0:
        raise UnsupportedModelError(
            f"node {node.name!r}: Pad mode {mode!r} with pads {amounts}; constant and reflect "
            "padding by 0 or more can be converted"
        )
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    ordered = [pads.get(a, (0, 0)) for a in form]
    if mode == "reflect":
        ctx.op("MIRROR_PAD", [source, ctx.constant(np.array(ordered, np.int32))], [target], mode=0)
        return
    value = ctx.array(node.inputs[2]) if len(node.inputs) > 2 else None
    ctx.pad_to(source, target, ordered, 0.0 if value is None or value.size == 0 else float(value.ravel()[0]))


@lowering("Expand")
def expand(ctx: Context, layer: Layer) -> None:
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    form = ctx.common_form([x], len(shape(y)))
    source = ctx.get(x, forms.operand_form(form, len(shape(y)), len(shape(x))), int8)
    ctx.op("BROADCAST_TO", [source, ctx.ints(forms.shape_in(form, shape(y)))], [ctx.new(y, form, int8)])


@lowering("Tile")
def tile(ctx: Context, layer: Layer) -> None:
    x, int8, form = layer.node.inputs[0], ctx.layer_int8(layer), ctx.form(layer.node.inputs[0])
    repeats = ctx.array(layer.node.inputs[1]).ravel().tolist()
    multiples = ctx.ints([1 if a is None else repeats[a] for a in form])
    ctx.op("TILE", [ctx.get(x, form, int8), multiples], [ctx.new(layer.output, form, int8)])


@lowering("Gather")
def gather(ctx: Context, layer: Layer) -> None:
    """Indices are int32 in the file: TensorFlow Lite Micro has no other."""
    x, indices = layer.node.inputs
    y, int8 = layer.output, ctx.layer_int8(layer)
    dims, rank = shape(x), len(shape(x))
    axis = integer(layer, "axis", 0) % rank
    form, index_form = forms.identity(rank), forms.identity(len(shape(indices)))
    constant = ctx.array(indices)
    if constant is not None and constant.ndim <= 1:
        form = ctx.form(x)  # the axis stays in its place
    if constant is not None:
        where = ctx.constant((constant % dims[axis]).astype(np.int32), name=indices.name or "")
    else:
        where = ctx.get(indices, index_form)
    place = form.index(axis)
    result = forms.identity(len(shape(y)))
    if form != forms.identity(rank):
        result = form if constant.ndim == 1 else forms.reduced(form, [axis])
    ctx.op("GATHER", [ctx.get(x, form, int8), where], [ctx.new(y, result, int8)], axis=place)


@lowering("DepthToSpace")
def depth_to_space(ctx: Context, layer: Layer) -> None:
    """TFLite's channel order is ONNX's DCR; CRD (PyTorch's pixel shuffle) gathers the channels first."""
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    block = integer(layer, "blocksize", 1)
    mode = layer.node.attributes.get("mode")
    source = ctx.get(x, (0, 2, 3, 1), int8)
    if mode is not None and mode.as_string() == "CRD":
        channels = shape(x)[1]
        order = np.arange(channels, dtype=np.int32).reshape(-1, block * block).T.ravel()
        gathered = ctx.like(source, f"{y.name}/channels", ctx.tensor(source).shape)
        source = ctx.op("GATHER", [source, ctx.constant(order)], [gathered], axis=3)
    ctx.op("DEPTH_TO_SPACE", [source], [ctx.new(y, (0, 2, 3, 1), int8)], blockSize=block)


@lowering("SpaceToDepth")
def space_to_depth(ctx: Context, layer: Layer) -> None:
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    block = integer(layer, "blocksize", 1)
    ctx.op("SPACE_TO_DEPTH", [ctx.get(x, (0, 2, 3, 1), int8)], [ctx.new(y, (0, 2, 3, 1), int8)], blockSize=block)
