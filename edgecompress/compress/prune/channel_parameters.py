"""Parameters of operators that say how long an axis is, after some of its positions have gone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.channel_rules import cuts
from edgecompress.graph.fusion import constant
from edgecompress.ingest.passes.edit import Edit

# (value, axis) -> bool for each position along it: whether it is kept
Kept = Callable[[ir.Value, int], np.ndarray]
Change = Callable[[ir.Node, Kept, Edit], None]


def count(value: ir.Value, kept: Kept) -> np.ndarray:
    """The value's shape afterwards."""
    return np.array([int(kept(value, axis).sum()) for axis in range(len(shape(value)))], np.int64)


def _renew(node: ir.Node, position: int, array: np.ndarray, edit: Edit) -> None:
    value = node.inputs[position]
    if not np.array_equal(constant(value), array):
        node.replace_input_with(position, edit.renewed(value, array.astype(constant(value).dtype)))


def _target_shape(node: ir.Node, kept: Kept, edit: Edit) -> None:
    _renew(node, 1, count(node.outputs[0], kept), edit)


def _resize(node: ir.Node, kept: Kept, edit: Edit) -> None:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        _renew(node, 3, count(node.outputs[0], kept), edit)


def _split(node: ir.Node, kept: Kept, edit: Edit) -> None:
    axis = node.attributes.get_int("axis", 0)
    sizes, start, whole = [], 0, kept(node.inputs[0], axis % len(shape(node.inputs[0])))
    for size in constant(node.inputs[1]).reshape(-1).tolist():
        sizes.append(int(whole[start : start + size].sum()))
        start += size
    _renew(node, 1, np.array(sizes, np.int64), edit)


def _slice(node: ir.Node, kept: Kept, edit: Edit) -> None:
    changed = [
        (a, s, e, step) if step != 1 else (a, int(whole[:s].sum()), int(whole[:e].sum()), step)
        for a, (s, e, step) in cuts(node)
        for whole in [kept(node.inputs[0], a)]
    ]
    if all(kept(node.inputs[0], a).all() for a, *_ in changed):
        return
    axes, starts, ends, steps = (np.array(column, np.int64) for column in zip(*changed))
    # A negative step may end in front of position 0, which has no number of its own.
    ends = np.where((steps < 0) & (ends < 0), np.iinfo(np.int32).min, ends)
    for position, array in ((1, starts), (2, ends), (3, axes), (4, steps)):
        _renew(node, position, array, edit)


def _gather(node: ir.Node, kept: Kept, edit: Edit) -> None:
    axis = node.attributes.get_int("axis", 0) % len(shape(node.inputs[0]))
    picked, whole = constant(node.inputs[1]), kept(node.inputs[0], axis)
    if picked is None or picked.ndim != 1 or whole.all():
        return
    stays = picked[whole[picked]] % len(whole)
    _renew(node, 1, (np.cumsum(whole) - 1)[stays], edit)


def _pad(node: ir.Node, kept: Kept, edit: Edit) -> None:
    amounts = constant(node.inputs[1]).reshape(2, -1).copy()
    for axis, size in enumerate(shape(node.inputs[0])):
        whole = kept(node.outputs[0], axis)
        if not whole.all():
            before = amounts[0, axis]
            amounts[:, axis] = whole[:before].sum(), whole[before + size :].sum()
    _renew(node, 1, amounts.reshape(-1), edit)


def _groups(node: ir.Node, kept: Kept, edit: Edit) -> None:
    groups = node.attributes.get_int("group", 1)
    if groups > 1 and shape(node.inputs[0])[1] == groups:
        node.attributes["group"] = ir.AttrInt64("group", int(kept(node.inputs[0], 1).sum()))


def _hidden_size(node: ir.Node, kept: Kept, edit: Edit) -> None:
    node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(kept(node.inputs[2], 2).sum()))


CHANGES: dict[str, Change] = {
    "Conv": _groups,
    "ConvTranspose": _groups,
    "Expand": _target_shape,
    "GRU": _hidden_size,
    "Gather": _gather,
    "LSTM": _hidden_size,
    "Pad": _pad,
    "Reshape": _target_shape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
}
