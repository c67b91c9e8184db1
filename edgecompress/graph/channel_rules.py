"""What each operator says about channels: a table from operator to the rule that couples positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import ChannelAxes, axes_except, label, shape
from edgecompress.graph.fusion import constant

Rule = Callable[[ir.Node, ChannelAxes], None]
RULES: dict[str, Rule] = {}


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Enters a rule in RULES."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(op_types, function))
        return function

    return enter


@rule(
    "Abs",
    "Add",
    "BatchNormalization",
    "Cast",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Gelu",
    "Greater",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Less",
    "Log",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Sqrt",
    "Sub",
    "Tanh",
    "Where",
)
def elementwise(node: ir.Node, axes: ChannelAxes) -> None:
    """Position by position; a dimension of 1 goes with every position."""
    for value in node.inputs:
        if value is not None:
            broadcast(value, node.outputs[0], axes)


def broadcast(value: ir.Value, output: ir.Value, axes: ChannelAxes) -> None:
    shift = len(shape(output)) - len(shape(value))
    for axis, size in enumerate(shape(value)):
        if size == shape(output)[axis + shift]:
            axes.couple(axes.ids(value, axis), axes.ids(output, axis + shift))


@rule("Clip")
def first_input(node: ir.Node, axes: ChannelAxes) -> None:
    broadcast(node.inputs[0], node.outputs[0], axes)


@rule("BatchNormalization", "InstanceNormalization")
def per_channel(node: ir.Node, axes: ChannelAxes) -> None:
    """Parameters are [C], of axis 1; InstanceNormalization takes its statistics over the axes behind."""
    x, y = node.inputs[0], node.outputs[0]
    broadcast(x, y, axes)
    for parameter in node.inputs[1:]:
        axes.couple(axes.ids(parameter, 0), axes.ids(y, 1))
    if node.op_type == "InstanceNormalization":
        for axis in range(2, len(shape(x))):
            axes.approximate(axes.ids(x, axis), f"{label(node)} takes its mean and variance over it")


@rule("LayerNormalization")
def layer_normalization(node: ir.Node, axes: ChannelAxes) -> None:
    x, y = node.inputs[0], node.outputs[0]
    for value in (x, *(v for v in node.inputs[1:] if v is not None)):
        broadcast(value, y, axes)
    for axis in range(node.attributes.get_int("axis", -1) % len(shape(x)), len(shape(x))):
        axes.approximate(axes.ids(x, axis), f"{label(node)} takes its mean and variance over it")


@rule("Softmax", "LogSoftmax")
def along_axis(node: ir.Node, axes: ChannelAxes) -> None:
    x = node.inputs[0]
    broadcast(x, node.outputs[0], axes)
    axes.fix(axes.ids(x, node.attributes.get_int("axis", -1)), f"{label(node)} runs over it")


@rule("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Resize")
def images(node: ir.Node, axes: ChannelAxes) -> None:
    """Channels stay what they are; height and width can't lose positions."""
    x, y = node.inputs[0], node.outputs[0]
    sizes = list(zip(shape(x), shape(y)))
    for axis, (before, after) in enumerate(sizes):
        if axis < 2 and before == after:
            axes.couple(axes.ids(x, axis), axes.ids(y, axis))
        else:
            spatial(axes, node, axis, x, y)


def spatial(axes: ChannelAxes, node: ir.Node, axis: int, *values: ir.Value) -> None:
    for value in values:
        axes.fix(axes.ids(value, axis), f"{label(node)} moves a window over it")


@rule("Conv")
def convolution(node: ir.Node, axes: ChannelAxes) -> None:
    """Weights [out, in / groups, ..]. The groups lose the same channels; a depthwise layer loses groups."""
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    groups = node.attributes.get_int("group", 1)
    inputs, outputs = axes.ids(x, 1).reshape(groups, -1), axes.ids(y, 1).reshape(groups, -1)
    axes.couple(axes.ids(weight, 0), axes.ids(y, 1))
    if groups > 1 and inputs.shape[1] == 1:
        axes.couple(inputs, outputs)
    else:
        axes.couple(inputs, axes.ids(weight, 1)[None])
        axes.couple(outputs, outputs[:1])
    _layer(node, axes)


@rule("ConvTranspose")
def transposed_convolution(node: ir.Node, axes: ChannelAxes) -> None:
    """Weights [in, out / groups, ..]."""
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    groups = node.attributes.get_int("group", 1)
    inputs, outputs = axes.ids(x, 1).reshape(groups, -1), axes.ids(y, 1).reshape(groups, -1)
    axes.couple(axes.ids(weight, 0), axes.ids(x, 1))
    if groups > 1 and inputs.shape[1] == 1:
        axes.couple(inputs, outputs)
        axes.fix(axes.ids(weight, 1), f"{label(node)} has one input channel in a group")
    else:
        axes.couple(outputs, axes.ids(weight, 1)[None])
        axes.couple(inputs, inputs[:1])
    _layer(node, axes)


def _layer(node: ir.Node, axes: ChannelAxes) -> None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    axes.couple(axes.ids(x, 0), axes.ids(y, 0))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        axes.couple(axes.ids(node.inputs[2], 0), axes.ids(y, 1))
    for axis in range(2, len(shape(x))):
        spatial(axes, node, axis, x, weight, y)


@rule("Gemm")
def gemm(node: ir.Node, axes: ChannelAxes) -> None:
    """[n, in] x [out, in]^T + bias."""
    x, weight, bias, y = *node.inputs[:3], node.outputs[0]
    axes.couple(axes.ids(x, 0), axes.ids(y, 0))
    axes.couple(axes.ids(x, 1), axes.ids(weight, 1))
    axes.couple(axes.ids(weight, 0), axes.ids(y, 1))
    broadcast(bias, y, axes)


@rule("MatMul")
def matmul(node: ir.Node, axes: ChannelAxes) -> None:
    """[.., m, k] x [.., k, n]; a vector has no m or no n."""
    a, b, y = *node.inputs[:2], node.outputs[0]
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


@rule("LSTM", "GRU")
def recurrent(node: ir.Node, axes: ChannelAxes) -> None:
    """X [steps, n, in], W [directions, gates * hidden, in], R [directions, gates * hidden, hidden],
    B [directions, 2 * gates * hidden]; all outputs and initial states end in hidden."""
    x, w, r = node.inputs[:3]
    axes.couple(axes.ids(x, 2), axes.ids(w, 2))
    hidden = axes.ids(r, 2)
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    for value in (w, r, bias):
        if value is not None:
            axes.couple(axes.ids(value, 1).reshape(-1, len(hidden)), hidden[None])
            axes.fix(axes.ids(value, 0), f"{label(node)} runs in these directions")
    states = [v for v in (*node.inputs[5:7], *node.outputs) if v is not None and v in axes]
    for value in states:
        axes.couple(axes.ids(value, -1), hidden)
        for axis in range(len(shape(value)) - 1):
            axes.fix(axes.ids(value, axis), f"{label(node)} steps over it")


@rule("Concat")
def concat(node: ir.Node, axes: ChannelAxes) -> None:
    """Along the axis, one behind the other."""
    y, axis = node.outputs[0], node.attributes.get_int("axis") % len(shape(node.outputs[0]))
    axes.couple(np.concatenate([axes.ids(v, axis) for v in node.inputs]), axes.ids(y, axis))
    for value in node.inputs:
        others(value, y, [axis], axes)


def others(x: ir.Value, y: ir.Value, left_out: list[int], axes: ChannelAxes) -> None:
    """All axes but these are the same in both."""
    for axis in axes_except(x, left_out):
        axes.couple(axes.ids(x, axis), axes.ids(y, axis))


@rule("Split")
def split(node: ir.Node, axes: ChannelAxes) -> None:
    x, axis, start = node.inputs[0], node.attributes.get_int("axis", 0), 0
    for y, size in zip(node.outputs, constant(node.inputs[1]).reshape(-1).tolist()):
        if y in axes:
            axes.couple(axes.ids(x, axis)[start : start + size], axes.ids(y, axis))
            others(x, y, [axis], axes)
        start += size


@rule("Slice")
def slice_(node: ir.Node, axes: ChannelAxes) -> None:
    """A cut with a step of 1 is one after channels have gone."""
    x, y = node.inputs[0], node.outputs[0]
    cut = dict(cuts(node))
    others(x, y, list(cut), axes)
    for axis, (start, end, step) in cut.items():
        ids = axes.ids(x, axis)
        if step == 1:
            axes.couple(ids[start:end], axes.ids(y, axis))
        else:
            for value in (x, y):
                axes.fix(axes.ids(value, axis), f"{label(node)} takes it in steps of {step}")


def cuts(node: ir.Node) -> list[tuple[int, tuple[int, int, int]]]:
    """axis -> start, end, step of a Slice, counted from the front."""
    rank = len(shape(node.inputs[0]))
    starts, ends, axes, steps = (constant(v).reshape(-1).tolist() for v in node.inputs[1:5])
    return [
        (a % rank, (*slice(s, e, step).indices(shape(node.inputs[0])[a])[:2], step))
        for s, e, a, step in zip(starts, ends, axes, steps)
    ]


@rule("Gather")
def gather(node: ir.Node, axes: ChannelAxes) -> None:
    """Picked by a list of constants positions stay the same ones; else the axis can't lose any."""
    x, indices, y = *node.inputs[:2], node.outputs[0]
    axis, rank = node.attributes.get_int("axis", 0) % len(shape(x)), len(shape(indices))
    picked = constant(indices)
    if picked is not None and rank == 1:
        axes.couple(axes.ids(x, axis)[picked], axes.ids(y, axis))
    else:
        axes.fix(axes.ids(x, axis), f"{label(node)} picks positions of it")
        for i in range(rank):
            if picked is None:
                axes.couple(axes.ids(indices, i), axes.ids(y, axis + i))
            else:
                axes.fix(axes.ids(y, axis + i), f"{label(node)} picks positions of it")
    for i in axes_except(x, [axis]):
        axes.couple(axes.ids(x, i), axes.ids(y, i if i < axis else i + rank - 1))


@rule("Pad")
def pad(node: ir.Node, axes: ChannelAxes) -> None:
    """Constant channels in front and behind are channels like others: the amounts shrink with them."""
    x, y = node.inputs[0], node.outputs[0]
    before, after = constant(node.inputs[1]).reshape(2, -1).tolist()
    for axis, size in enumerate(shape(x)):
        if min(before[axis], after[axis]) < 0 or (
            node.attributes.get_string("mode", "constant") != "constant" and before[axis] + after[axis]
        ):
            for value in (x, y):
                axes.fix(axes.ids(value, axis), f"{label(node)} cuts or mirrors it")
        else:
            axes.couple(axes.ids(x, axis), axes.ids(y, axis)[before[axis] : before[axis] + size])


@rule("ReduceMean", "ReduceSum", "ReduceMax", "ArgMax")
def reduction(node: ir.Node, axes: ChannelAxes) -> None:
    """A sum with zeros is the sum without; a mean divides by less; a maximum may be one of the zeros."""
    x, y = node.inputs[0], node.outputs[0]
    chosen = [node.attributes.get_int("axis", 0)] if node.op_type == "ArgMax" else constant(node.inputs[1]).tolist()
    kept = axes_except(x, chosen)
    places = kept if node.attributes.get_int("keepdims", 1) else range(len(kept))
    for a, b in zip(kept, places):
        axes.couple(axes.ids(x, a), axes.ids(y, b))
    for axis in set(range(len(shape(x)))) - set(kept):
        if node.op_type == "ReduceMean":
            axes.approximate(axes.ids(x, axis), f"{label(node)} runs over it")
        elif node.op_type != "ReduceSum":
            axes.fix(axes.ids(x, axis), f"{label(node)} runs over it")


@rule("Transpose")
def transpose(node: ir.Node, axes: ChannelAxes) -> None:
    x, y = node.inputs[0], node.outputs[0]
    order = node.attributes.get_ints("perm") or reversed(range(len(shape(x))))
    for after, before in enumerate(order):
        axes.couple(axes.ids(x, before), axes.ids(y, after))


@rule("Expand", "Tile")
def repeat(node: ir.Node, axes: ChannelAxes) -> None:
    x, y = node.inputs[0], node.outputs[0]
    shift = len(shape(y)) - len(shape(x))
    broadcast(x, y, axes)
    for axis, size in enumerate(shape(x)):
        if size not in (1, shape(y)[axis + shift]):
            for value, i in ((x, axis), (y, axis + shift)):
                axes.fix(axes.ids(value, i), f"{label(node)} repeats it")


@rule("DepthToSpace")
def depth_to_space(node: ir.Node, axes: ChannelAxes) -> None:
    """A channel of the output is size^2 of the input: DCR has them [size^2, channels], CRD [channels, size^2]."""
    mode = node.attributes.get_string("mode", "DCR")
    _blocks(node, axes, node.inputs[0], node.outputs[0], channels_last=mode == "DCR")


@rule("SpaceToDepth")
def space_to_depth(node: ir.Node, axes: ChannelAxes) -> None:
    _blocks(node, axes, node.outputs[0], node.inputs[0], channels_last=True)


def _blocks(node: ir.Node, axes: ChannelAxes, deep: ir.Value, wide: ir.Value, channels_last: bool) -> None:
    channels = axes.ids(wide, 1)
    form = (-1, len(channels)) if channels_last else (len(channels), -1)
    axes.couple(axes.ids(deep, 1).reshape(form), channels[None] if channels_last else channels[:, None])
    axes.couple(axes.ids(deep, 0), axes.ids(wide, 0))
    for axis in (2, 3):
        spatial(axes, node, axis, deep, wide)
