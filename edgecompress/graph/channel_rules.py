"""Rules about channels that several operators share; the records of `operators` name these or their own rules."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.channel_axes import ChannelAxes, axes_except, shape
from edgecompress.graph.nodes import argument
from edgecompress.graph.provenance import label


def fix_all(node: ir.Node, axes: ChannelAxes) -> None:
    """Nothing is known about the operator: all positions along all axes of its values stay."""
    for value in (*node.inputs, *node.outputs):
        if value is not None and value in axes:
            for axis in range(len(shape(value))):
                axes.fix(axes.ids(value, axis), f"{label(node)} has no rule for channels")


def elementwise(node: ir.Node, axes: ChannelAxes) -> None:
    """Position by position; a dimension of 1 goes with every position."""
    for value in node.inputs:
        if value is not None:
            broadcast(value, node.outputs[0], axes)


def broadcast(value: ir.Value, output: ir.Value, axes: ChannelAxes) -> None:
    """Couples dimensions that are as long in the output as in one of its operands, counted from the last one."""
    shift = len(shape(output)) - len(shape(value))
    for axis, size in enumerate(shape(value)):
        if size == shape(output)[axis + shift]:
            axes.couple(axes.ids(value, axis), axes.ids(output, axis + shift))


def spatial(axes: ChannelAxes, node: ir.Node, axis: int, *values: ir.Value) -> None:
    """Height and width can't lose positions."""
    for value in values:
        axes.fix(axes.ids(value, axis), f"{label(node)} moves a window along this axis")


def others(x: ir.Value, y: ir.Value, left_out: list[int], axes: ChannelAxes) -> None:
    """Couples all axes except `left_out`, which are the same in both values."""
    for axis in axes_except(x, left_out):
        axes.couple(axes.ids(x, axis), axes.ids(y, axis))


def images(node: ir.Node, axes: ChannelAxes) -> None:
    """Channels stay what they are; height and width can't lose positions."""
    x, y = argument(node, 0), node.outputs[0]
    sizes = list(zip(shape(x), shape(y)))
    for axis, (before, after) in enumerate(sizes):
        if axis < 2 and before == after:
            axes.couple(axes.ids(x, axis), axes.ids(y, axis))
        else:
            spatial(axes, node, axis, x, y)
