"""Folds a constant that multiplies, or is added to, a linear layer's output into its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit, NodePass, only_user, static_shape


@dataclass(frozen=True)
class _Linear:
    """Where a linear operator keeps its output channels: in the output, and in the weight."""

    output_axis: int
    weight_axis: int


LARGEST = float(np.finfo(np.float32).max)
LINEAR = {"Conv": _Linear(1, 0), "ConvTranspose": _Linear(1, 1), "Gemm": _Linear(1, 0)}


class FuseAffine(NodePass):
    """For y = W x + b (Conv, ConvTranspose, Gemm in canonical form) whose only reader is

    1. Mul or Div by a constant per channel: W and b are scaled.
    2. Add or Sub of a constant per channel: b moves.
    This repeats until something else follows. Products and sums are computed in float64 and rounded once.
    """

    operators = frozenset(LINEAR)

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        weight, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if weight is None or bias is None:
            return False
        linear = LINEAR[node.op_type]
        scale, shift = np.ones(len(bias)), bias.astype(np.float64)
        absorbed: list[ir.Node] = []
        follower = only_user(node.outputs[0])
        while follower is not None and (step := _affine(follower, node.outputs[0], linear, absorbed)) is not None:
            scale, shift = scale * step[0], shift * step[0] + step[1]
            absorbed.append(follower)
            follower = only_user(follower.outputs[0])
        if not absorbed:
            return False
        scaled = _scaled(weight.astype(np.float64), scale, linear.weight_axis)
        if max(np.abs(scaled).max(initial=0), np.abs(shift).max(initial=0)) > LARGEST:
            return False
        if not (scale == 1.0).all():
            node.replace_input_with(1, edit.renewed(argument(node, 1), scaled.astype(np.float32)))
        node.replace_input_with(2, edit.renewed(argument(node, 2), shift.astype(np.float32)))
        edit.absorb(node, absorbed)
        return True


def _scaled(weight: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """weight [out, ..] or, for ConvTranspose, [in, out / groups, ..]: each output channel times its scale."""
    if axis == 0:
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    groups = len(scale) // weight.shape[1]
    split = weight.reshape(groups, -1, *weight.shape[1:])
    return (split * scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape)


def _affine(
    follower: ir.Node, origin: ir.Value, linear: _Linear, absorbed: list[ir.Node]
) -> tuple[np.ndarray | float, np.ndarray | float] | None:
    """(scale, shift) per channel of a follower: y -> y * scale + shift; None when it is something else."""
    if follower.domain != "" or follower.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    current = absorbed[-1].outputs[0] if absorbed else origin
    position = 0 if follower.inputs[0] is current else 1
    other = constant(follower.inputs[1 - position])
    shape = static_shape(origin)
    if other is None or shape is None or static_shape(follower.outputs[0]) != shape or other.dtype != np.float32:
        return None
    channel = _per_channel(other.astype(np.float64), shape, linear.output_axis)
    if channel is None:
        return None
    if follower.op_type == "Mul":
        return channel, 0.0
    if follower.op_type == "Add":
        return 1.0, channel
    if follower.op_type == "Sub":
        return (1.0, -channel) if position == 0 else (-1.0, channel)
    if position == 1 or not channel.all():
        return None
    return 1.0 / channel, 0.0


def _per_channel(array: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray | None:
    """[C] when the array, broadcast to `shape`, varies along `axis` alone; else None."""
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if any(n != 1 for i, n in enumerate(full.shape) if i != axis):
        return None
    return np.broadcast_to(full.reshape(-1), (shape[axis],))
