"""Operators that move, cut, join or repeat data and compute nothing."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.batch_axes import Growth
from edgecompress.graph.channel_axes import ChannelAxes, shape
from edgecompress.graph.channel_reshape import couple_same
from edgecompress.graph.channel_rules import broadcast, others, spatial
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, bound_of, fits, over_image, unknown
from edgecompress.graph.nodes import (
    argument,
    arguments,
    integer,
    integers,
    optional_parameter,
    parameter,
    parameter_integers,
    text,
)
from edgecompress.graph.provenance import label
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import Example
from edgecompress.operators.record import SAME, Integer, Kept, Operator, Renew, TorchFunction, Weights, always, register

if TYPE_CHECKING:
    from torch import Tensor

# ---- TFLite ----


def _lower_transpose(ctx: Context, layer: Layer) -> None:
    """Moves nothing: the same tensor, its axes renamed."""
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    form = ctx.form(x)
    ctx.bind(y, ctx.get(x, form, int8), forms.transposed(form, _order(layer.node)), int8)


def _order(node: ir.Node) -> list[int]:
    """The permutation of a Transpose; backwards when the node names none."""
    return integers(node, "perm") or list(range(len(shape(argument(node, 0)))))[::-1]


def _lower_reshape(ctx: Context, layer: Layer) -> None:
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    form = ctx.form(x)
    result = forms.reshaped(shape(x), shape(y), form)
    if result is None:
        form, result = forms.identity(len(shape(x))), forms.identity(len(shape(y)))
    ctx.reshape(ctx.get(x, form, int8), ctx.new(y, result, int8))


def _lower_concat(ctx: Context, layer: Layer) -> None:
    y, int8 = layer.output, ctx.layer_int8(layer)
    rank = len(shape(y))
    form = ctx.common_form(arguments(layer.node), rank)
    axis = form.index(integer(layer.node, "axis", 0) % rank)
    ctx.op(
        "CONCATENATION", [ctx.get(v, form, int8) for v in arguments(layer.node)], [ctx.new(y, form, int8)], axis=axis
    )


def _lower_split(ctx: Context, layer: Layer) -> None:
    x, int8, form = argument(layer.node, 0), ctx.layer_int8(layer), ctx.form(argument(layer.node, 0))
    axis = integer(layer.node, "axis", 0) % len(shape(x))
    sizes = [shape(y)[axis] for y in layer.node.outputs]
    source = ctx.get(x, form, int8)
    targets = [ctx.new(y, form, int8) for y in layer.node.outputs]
    position = ctx.constant(np.array(form.index(axis), np.int32))
    if len(set(sizes)) == 1:
        ctx.op("SPLIT", [position, source], targets, numSplits=len(targets))
    else:
        ctx.op("SPLIT_V", [source, ctx.ints(sizes), position], targets, numSplits=len(targets))


def _lower_slice(ctx: Context, layer: Layer) -> None:
    """SLICE for steps of 1, STRIDED_SLICE otherwise; a negative step is a REVERSE_V2 first."""
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    dims, rank, form = shape(x), len(shape(x)), ctx.form(argument(layer.node, 0))
    starts, ends = (parameter_integers(layer.node, i) for i in (1, 2))
    axes = [a % rank for a in parameter_integers(layer.node, 3)] or list(range(len(starts)))
    steps = parameter_integers(layer.node, 4) or [1] * len(starts)
    ranges = {a: range(dims[a])[slice(_bound(s), _bound(e), k)] for s, e, a, k in zip(starts, ends, axes, steps)}
    source = ctx.get(x, form, int8)
    backwards = [i for i, a in enumerate(form) if a in ranges and ranges[a].step < 0]
    if backwards:
        flipped = ctx.like(source, f"{y.name}/reversed", ctx.tensor(source).shape)
        source = ctx.op("REVERSE_V2", [source, ctx.ints(backwards)], [flipped])
    begin, size, step = [], [], []
    for a in form:
        n = 1 if a is None else dims[a]
        r = range(n) if a is None else ranges.get(a, range(n))
        begin.append(r.start if r.step > 0 else n - 1 - r.start)
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


def _lower_pad(ctx: Context, layer: Layer) -> None:
    node, x, y, int8 = layer.node, argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    rank, form = len(shape(x)), ctx.form(argument(layer.node, 0))
    amounts = parameter_integers(node, 1)
    axes = [a % rank for a in parameter_integers(node, 3)] or list(range(rank))
    pads = {a: (amounts[i], amounts[i + len(axes)]) for i, a in enumerate(axes)}
    mode = text(node, "mode", "constant")
    if mode not in ("constant", "reflect") or min(amounts) < 0:
        raise UnsupportedModelError(
            f"{label(node)} mode {mode!r} with pads {amounts}; constant and reflect "
            "padding by 0 or more can be converted"
        )
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    ordered = [(0, 0) if a is None else pads.get(a, (0, 0)) for a in form]
    if mode == "reflect":
        ctx.op("MIRROR_PAD", [source, ctx.constant(np.array(ordered, np.int32))], [target], mode=0)
        return
    value = optional_parameter(node, 2)
    ctx.pad_to(source, target, ordered, 0.0 if value is None or value.size == 0 else float(value.ravel()[0]))


def _lower_expand(ctx: Context, layer: Layer) -> None:
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    form = ctx.common_form([x], len(shape(y)))
    source = ctx.get(x, forms.operand_form(form, len(shape(y)), len(shape(x))), int8)
    ctx.op("BROADCAST_TO", [source, ctx.ints(forms.shape_in(form, shape(y)))], [ctx.new(y, form, int8)])


def _lower_tile(ctx: Context, layer: Layer) -> None:
    x, int8, form = argument(layer.node, 0), ctx.layer_int8(layer), ctx.form(argument(layer.node, 0))
    repeats = parameter_integers(layer.node, 1)
    multiples = ctx.ints([1 if a is None else repeats[a] for a in form])
    ctx.op("TILE", [ctx.get(x, form, int8), multiples], [ctx.new(layer.output, form, int8)])


def _lower_depth_to_space(ctx: Context, layer: Layer) -> None:
    """TFLite's channel order is ONNX's DCR; CRD (PyTorch's pixel shuffle) gathers the channels first."""
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    block = integer(layer.node, "blocksize", 1)
    source = ctx.get(x, (0, 2, 3, 1), int8)
    if text(layer.node, "mode", "DCR") == "CRD":
        channels = shape(x)[1]
        order = np.arange(channels, dtype=np.int32).reshape(-1, block * block).T.ravel()
        gathered = ctx.like(source, f"{y.name}/channels", ctx.tensor(source).shape)
        source = ctx.op("GATHER", [source, ctx.constant(order)], [gathered], axis=3)
    ctx.op("DEPTH_TO_SPACE", [source], [ctx.new(y, (0, 2, 3, 1), int8)], blockSize=block)


def _lower_space_to_depth(ctx: Context, layer: Layer) -> None:
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    block = integer(layer.node, "blocksize", 1)
    ctx.op("SPACE_TO_DEPTH", [ctx.get(x, (0, 2, 3, 1), int8)], [ctx.new(y, (0, 2, 3, 1), int8)], blockSize=block)


def _accepts_pad(node: ir.Node) -> str | None:
    mode = text(node, "mode", "constant")
    if mode not in ("constant", "reflect"):
        return f"operator Pad in mode {mode}"
    return constant_inputs(1, 2, 3)(node)


# ---- channels ----


def _concat_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """Along the axis, one behind the other."""
    y, axis = node.outputs[0], integer(node, "axis") % len(shape(node.outputs[0]))
    axes.couple(np.concatenate([axes.ids(v, axis) for v in arguments(node)]), axes.ids(y, axis))
    for value in arguments(node):
        others(value, y, [axis], axes)


def _split_channels(node: ir.Node, axes: ChannelAxes) -> None:
    x, axis, start = argument(node, 0), integer(node, "axis", 0), 0
    for y, size in zip(node.outputs, parameter(node, 1).reshape(-1).tolist()):
        if y in axes:
            axes.couple(axes.ids(x, axis)[start : start + size], axes.ids(y, axis))
            others(x, y, [axis], axes)
        start += size


def _slice_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """A cut with a step of 1 is one after channels have gone."""
    x, y = argument(node, 0), node.outputs[0]
    cut = dict(_cuts(node))
    others(x, y, list(cut), axes)
    for axis, (start, end, step) in cut.items():
        ids = axes.ids(x, axis)
        if step == 1:
            axes.couple(ids[start:end], axes.ids(y, axis))
        else:
            for value in (x, y):
                axes.fix(axes.ids(value, axis), f"{label(node)} slices this axis in steps of {step}")


def _cuts(node: ir.Node) -> list[tuple[int, tuple[int, int, int]]]:
    """axis -> start, end, step of a Slice, counted from the front."""
    rank = len(shape(argument(node, 0)))
    starts, ends, axes, steps = (parameter_integers(node, i) for i in range(1, 5))
    return [
        (a % rank, (*slice(s, e, step).indices(shape(argument(node, 0))[a])[:2], step))
        for s, e, a, step in zip(starts, ends, axes, steps)
    ]


def _pad_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """Constant channels in front and behind are channels like others: the amounts shrink with them."""
    x, y = argument(node, 0), node.outputs[0]
    before, after = parameter(node, 1).reshape(2, -1).tolist()
    for axis, size in enumerate(shape(x)):
        if min(before[axis], after[axis]) < 0 or (
            text(node, "mode", "constant") != "constant" and before[axis] + after[axis]
        ):
            for value in (x, y):
                axes.fix(axes.ids(value, axis), f"{label(node)} crops or mirrors this axis")
        else:
            axes.couple(axes.ids(x, axis), axes.ids(y, axis)[before[axis] : before[axis] + size])


def _transpose_channels(node: ir.Node, axes: ChannelAxes) -> None:
    x, y = argument(node, 0), node.outputs[0]
    for after, before in enumerate(_order(node)):
        axes.couple(axes.ids(x, before), axes.ids(y, after))


def _repeat_channels(node: ir.Node, axes: ChannelAxes) -> None:
    x, y = argument(node, 0), node.outputs[0]
    shift = len(shape(y)) - len(shape(x))
    broadcast(x, y, axes)
    for axis, size in enumerate(shape(x)):
        if size not in (1, shape(y)[axis + shift]):
            for value, i in ((x, axis), (y, axis + shift)):
                axes.fix(axes.ids(value, i), f"{label(node)} repeats it")


def _depth_to_space_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """A channel of the output is size^2 of the input: DCR has them [size^2, channels], CRD [channels, size^2]."""
    mode = text(node, "mode", "DCR")
    _blocks(node, axes, argument(node, 0), node.outputs[0], channels_last=mode == "DCR")


def _space_to_depth_channels(node: ir.Node, axes: ChannelAxes) -> None:
    _blocks(node, axes, node.outputs[0], argument(node, 0), channels_last=True)


def _blocks(node: ir.Node, axes: ChannelAxes, deep: ir.Value, wide: ir.Value, channels_last: bool) -> None:
    channels = axes.ids(wide, 1)
    form = (-1, len(channels)) if channels_last else (len(channels), -1)
    axes.couple(axes.ids(deep, 1).reshape(form), channels[None] if channels_last else channels[:, None])
    axes.couple(axes.ids(deep, 0), axes.ids(wide, 0))
    for axis in (2, 3):
        spatial(axes, node, axis, deep, wide)


# ---- parameters after some channels have gone ----


def renew_shape(node: ir.Node, kept: Kept, renew: Renew) -> None:
    """Input 1 is the output's shape."""
    renew(node, 1, kept_shape(node.outputs[0], kept))


def kept_shape(value: ir.Value, kept: Kept) -> np.ndarray:
    """int64: the value's shape afterwards."""
    return np.array([int(kept(value, axis).sum()) for axis in range(len(shape(value)))], np.int64)


def _renew_split(node: ir.Node, kept: Kept, renew: Renew) -> None:
    axis = integer(node, "axis", 0)
    sizes, start, whole = [], 0, kept(argument(node, 0), axis % len(shape(argument(node, 0))))
    for size in parameter(node, 1).reshape(-1).tolist():
        sizes.append(int(whole[start : start + size].sum()))
        start += size
    renew(node, 1, np.array(sizes, np.int64))


def _renew_slice(node: ir.Node, kept: Kept, renew: Renew) -> None:
    changed = [
        (a, s, e, step) if step != 1 else (a, int(whole[:s].sum()), int(whole[:e].sum()), step)
        for a, (s, e, step) in _cuts(node)
        for whole in [kept(argument(node, 0), a)]
    ]
    if all(kept(argument(node, 0), a).all() for a, *_ in changed):
        return
    axes, starts, ends, steps = (np.array(column, np.int64) for column in zip(*changed))
    # A negative step may end in front of position 0, which has no number of its own.
    ends = np.where((steps < 0) & (ends < 0), np.iinfo(np.int32).min, ends)
    for position, array in ((1, starts), (2, ends), (3, axes), (4, steps)):
        renew(node, position, array)


def _renew_pad(node: ir.Node, kept: Kept, renew: Renew) -> None:
    amounts = parameter(node, 1).reshape(2, -1).copy()
    for axis, size in enumerate(shape(argument(node, 0))):
        whole = kept(node.outputs[0], axis)
        if not whole.all():
            before = amounts[0, axis]
            amounts[:, axis] = whole[:before].sum(), whole[before + size :].sum()
    renew(node, 1, amounts.reshape(-1))


# ---- bounds ----


def _pad_bounds(node: ir.Node, known: Known) -> Interval:
    before, after = parameter(node, 1).reshape(2, -1)
    x = bound_of(known, 0)
    if any(before[:2]) or any(after[:2]):
        return unknown(node.outputs[0])
    x = over_image(x, x.low.ndim)
    if text(node, "mode", "constant") != "constant":
        return x
    filler = optional_parameter(node, 2)
    value = 0.0 if filler is None else float(filler)
    return Interval(np.minimum(x.low, value), np.maximum(x.high, value))


def _concat_bounds(node: ir.Node, known: Known) -> Interval:
    axis = integer(node, "axis")
    if any(k is None for k in known) or not fits(node.outputs[0]):
        return unknown(node.outputs[0])
    sides = []
    for side in ("low", "high"):
        parts = [np.broadcast_to(getattr(k, side), shape(v)) for k, v in zip(known, arguments(node))]
        sides.append(np.concatenate(parts, axis))
    return Interval(*sides)


def _reshape_bounds(node: ir.Node, known: Known) -> Interval:
    x, y = argument(node, 0), node.outputs[0]
    if not fits(y):
        return unknown(y)
    bounds = bound_of(known, 0)
    return Interval(*(np.broadcast_to(side, shape(x)).reshape(shape(y)) for side in (bounds.low, bounds.high)))


def _transpose_bounds(node: ir.Node, known: Known) -> Interval:
    order = _order(node)
    return Interval(bound_of(known, 0).low.transpose(order), bound_of(known, 0).high.transpose(order))


# ---- another batch size ----


def _batch_reshape(node: ir.Node, growth: Growth) -> dict[int, np.ndarray | None] | None:
    """The samples keep their place in memory. Where that leaves a choice, they become the dimension that the model
    which came in says, else one of their own, else the outer part of one."""
    place, x = growth.place(node), argument(node, 0)
    target = optional_parameter(node, 1)
    if place is None or target is None:
        return None
    around = prod(shape(x)[: place.axis]) * place.outer
    choices = []
    for axis, size in enumerate(target):
        outer, rest = divmod(around, prod(target[:axis]))
        if rest == 0 and size % (outer * growth.own) == 0:
            choices.append((axis != growth.known.get(str(node.outputs[0].name)), size != growth.own, outer != 1, axis))
    return {1: growth.grown_at(target, min(choices)[-1])} if choices else None


def _batch_expand(node: ir.Node, growth: Growth) -> dict[int, np.ndarray | None] | None:
    target, place = optional_parameter(node, 1), growth.place(node)
    if target is None or place is None:
        return None
    return {1: growth.grown_at(target, place.axis + len(target) - len(shape(argument(node, 0))))}


def _batch_slice(node: ir.Node, growth: Growth) -> dict[int, np.ndarray | None] | None:
    """All samples stay where the slice has all of them."""
    place, x = growth.place(node), argument(node, 0)
    starts, ends, axes, steps = (parameter_integers(node, i) for i in (1, 2, 3, 4))
    axes = [a % len(shape(x)) for a in axes] or list(range(len(starts)))
    if place is None or place.axis not in axes:
        return {}
    at, size = axes.index(place.axis), shape(x)[place.axis]
    own = size * growth.own // growth.batch
    if slice(starts[at], ends[at], steps[at] if steps else 1).indices(own) != (0, own, 1):
        return None
    return {2: np.array([*ends[:at], size, *ends[at + 1 :]], np.int64)}


# ---- torch ----


def _concat_torch(node: ir.Node) -> TorchFunction:
    import torch

    axis = integer(node, "axis")

    def join(*xs: Tensor) -> Tensor:
        """A constant of batch 1 goes with every sample."""
        others = [[n for i, n in enumerate(x.shape) if i != axis] for x in xs]
        if any(o != others[0] for o in others):
            wide = torch.broadcast_shapes(*others)
            xs = tuple(x.expand(*wide[:axis], x.shape[axis], *wide[axis:]) for x in xs)
        return torch.cat(xs, axis)

    return join


def _depth_to_space_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    size = integer(node, "blocksize")
    if text(node, "mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // size**2, h * size, w * size)

    return move


def _space_to_depth_torch(node: ir.Node) -> TorchFunction:
    size = integer(node, "blocksize")

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * size**2, h // size, w // size)

    return move


def _expand_torch(node: ir.Node) -> TorchFunction:
    import torch

    target = parameter_integers(node, 1)
    return lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, target))


def _pad_torch(node: ir.Node) -> TorchFunction:
    import torch
    from torch.nn import functional as F

    before, after = np.array(parameter_integers(node, 1)).reshape(2, -1)
    if text(node, "mode", "constant") == "constant":
        filler = optional_parameter(node, 2)
        value = 0.0 if filler is None else filler.item()
        amounts = [int(n) for pair in zip(before[::-1], after[::-1]) for n in pair]
        return lambda x, *parameters: F.pad(x, amounts, value=value)

    def reflect(x: Tensor, *parameters: Tensor) -> Tensor:
        for axis in np.flatnonzero(before | after):
            places = np.pad(np.arange(x.shape[axis]), (before[axis], after[axis]), "reflect")
            x = x.index_select(int(axis), torch.as_tensor(places, device=x.device))
        return x

    return reflect


def _reshape_torch(node: ir.Node) -> TorchFunction:
    target = tuple(parameter_integers(node, 1))
    return lambda x, shape: x.reshape(target)


def _slice_torch(node: ir.Node) -> TorchFunction:
    import torch

    ranges = list(zip(*(parameter_integers(node, i) for i in (3, 1, 2, 4))))

    def cut(x: Tensor, *parameters: Tensor) -> Tensor:
        for axis, start, end, step in ranges:
            if step < 0:  # which torch's slices haven't
                places = torch.arange(start, max(end, -1), step, device=x.device)
                x = x.index_select(axis, places)
            else:
                x = x[(slice(None),) * axis + (slice(start, end, step),)]
        return x

    return cut


def _split_torch(node: ir.Node) -> TorchFunction:
    axis, sizes = integer(node, "axis"), parameter_integers(node, 1)
    return lambda x, parameters: x.split(sizes, axis)


def _tile_torch(node: ir.Node) -> TorchFunction:
    repeats = parameter_integers(node, 1)
    return lambda x, parameters: x.repeat(repeats)


def _transpose_torch(node: ir.Node) -> TorchFunction:
    order = _order(node)
    return lambda x: x.permute(order)


# ---- the records ----

MOVE = Integer(SAME, passive=True, int16=always)
MOVE_INT8 = Integer(SAME, passive=True)
CONSTANTS = Weights(by_place=True, least=2)


register(
    Operator(
        "Transpose",
        examples=(
            Example("y = Transpose<perm=[0,2,3,1]>(x)"),
            Example("y = Transpose<perm=[0,2,1]>(x)", {"x": (1, 4, 6)}),
        ),
        channels=_transpose_channels,
        bounds=_transpose_bounds,
        torch=_transpose_torch,
        integer=MOVE,
        tflite=_lower_transpose,
    ),
    Operator(
        "Reshape",
        examples=(
            Example("y = Reshape(x, s)", constants={"s": np.array([1, 4, 30])}),
            Example("y = Reshape(x, s)", constants={"s": np.array([1, 2, 2, 6, 5])}),
        ),
        accepts=constant_inputs(1),
        channels=couple_same,
        bounds=_reshape_bounds,
        batch=_batch_reshape,
        change=renew_shape,
        torch=_reshape_torch,
        integer=MOVE,
        tflite=_lower_reshape,
    ),
    Operator(
        "Concat",
        examples=(
            Example("y = Concat<axis=1>(x, z)", {"x": (1, 4, 6, 5), "z": (1, 3, 6, 5)}),
            Example("y = Concat<axis=2>(x, x)"),
        ),
        channels=_concat_channels,
        bounds=_concat_bounds,
        torch=_concat_torch,
        weights=CONSTANTS,
        integer=Integer(SAME, data=None, passive=True, int16=always),
        tflite=_lower_concat,
        layout="free",
    ),
    Operator(
        "Split",
        examples=(
            Example("a, b = Split<axis=1>(x, s) y = Concat<axis=1>(b, a)", constants={"s": np.array([1, 3])}),
            Example("a, b = Split<axis=1, num_outputs=2>(x) y = Add(a, b)"),
        ),
        accepts=constant_inputs(1),
        channels=_split_channels,
        change=_renew_split,
        torch=_split_torch,
        integer=MOVE,
        tflite=_lower_split,
        layout="free",
    ),
    Operator(
        "Slice",
        examples=(
            Example("y = Slice(x, s, e, a)", constants={"s": [1, 0], "e": [3, 4], "a": [1, 2]}),
            Example("y = Slice(x, s, e, a, k)", constants={"s": [-1], "e": [-100], "a": [3], "k": [-2]}),
        ),
        accepts=constant_inputs(1, 2, 3, 4),
        channels=_slice_channels,
        batch=_batch_slice,
        change=_renew_slice,
        torch=_slice_torch,
        integer=MOVE,
        tflite=_lower_slice,
        layout="free",
    ),
    Operator(
        "Pad",
        examples=(
            Example("y = Pad(x, p)", constants={"p": [0, 0, 1, 2, 0, 0, 0, 1]}),
            Example("y = Pad(x, p, v)", constants={"p": [0, 1, 1, 0, 0, 0, 0, 1], "v": np.float32(0.5)}),
            Example('y = Pad<mode="reflect">(x, p)', constants={"p": [0, 0, 1, 2, 0, 0, 0, 1]}),
        ),
        accepts=_accepts_pad,
        channels=_pad_channels,
        bounds=_pad_bounds,
        change=_renew_pad,
        torch=_pad_torch,
        integer=Integer(
            SAME, passive=True, computes=True, int16=lambda node: text(node, "mode", "constant") == "constant"
        ),
        tflite=_lower_pad,
        layout="free",
    ),
    Operator(
        "Expand",
        examples=(Example("m = Mul(x, x) y = Expand(m, s)", {"x": (1, 4, 1, 5)}, constants={"s": [1, 4, 6, 5]}),),
        accepts=constant_inputs(1),
        channels=_repeat_channels,
        batch=_batch_expand,
        change=renew_shape,
        torch=_expand_torch,
        weights=CONSTANTS,
        integer=MOVE,
        tflite=_lower_expand,
    ),
    Operator(
        "Tile",
        examples=(Example("y = Tile(x, r)", constants={"r": [1, 1, 2, 3]}),),
        accepts=constant_inputs(1),
        channels=_repeat_channels,
        torch=_tile_torch,
        integer=MOVE_INT8,
        tflite=_lower_tile,
    ),
    Operator(
        "DepthToSpace",
        examples=(
            Example("y = DepthToSpace<blocksize=2>(x)", {"x": (1, 8, 3, 2)}),
            Example('y = DepthToSpace<blocksize=2, mode="CRD">(x)', {"x": (1, 8, 3, 2)}),
        ),
        channels=_depth_to_space_channels,
        torch=_depth_to_space_torch,
        integer=MOVE_INT8,
        tflite=_lower_depth_to_space,
        layout="channels",
    ),
    Operator(
        "SpaceToDepth",
        examples=(Example("y = SpaceToDepth<blocksize=2>(x)", {"x": (1, 3, 4, 6)}),),
        channels=_space_to_depth_channels,
        torch=_space_to_depth_torch,
        integer=MOVE_INT8,
        tflite=_lower_space_to_depth,
        layout="channels",
    ),
)
