"""Axes, shapes and sizes as non-negative constants, one form for each operator that has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument, integer, optional_parameter, parameter_integers, text
from edgecompress.ingest.passes.canonical_convolution import set_attributes
from edgecompress.ingest.passes.edit import Edit, NodePass, input_or_none, static_shape

Rewrite = Callable[[ir.Node, Edit], bool]


class ExplicitParameters(NodePass):
    """Applies PARAMETERS to every node that has an entry, when its shapes are known.

    1. `axis` attributes are present and count from the first dimension.
    2. Reduce*: axes are a sorted constant, keepdims present. Split: sizes are a constant.
    3. Slice: starts, ends, axes, steps are constants within the dimension; a negative step may
       end at -(n + 1).
    4. Expand: the whole output shape. Tile, Gather: no negative number.
    5. Resize: by `sizes`, unless the scale isn't output / input; no roi, except for a crop.
    6. LSTM, GRU, RNN: `direction` and `hidden_size` present, no sequence_lens that say
       nothing.
    """

    @property
    def operators(self) -> frozenset[str]:  # type: ignore[override]
        """Those that the table has."""
        return frozenset(PARAMETERS)

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        """Changes the node as the table says; returns whether anything changed."""
        is_known = static_shape(node.inputs[0]) is not None and static_shape(node.outputs[0]) is not None
        if not is_known and node.op_type not in ("GRU", "LSTM", "RNN"):  # whose Y may be absent while Y_h is read
            return False
        return PARAMETERS[node.op_type](node, edit)


def _axis(default: int) -> Rewrite:
    def rewrite(node: ir.Node, edit: Edit) -> bool:
        rank = len(shape(argument(node, 0)))
        return set_attributes(node, {"axis": integer(node, "axis", default) % max(rank, 1)})

    return rewrite


def _reduce(node: ir.Node, edit: Edit) -> bool:
    rank = len(shape(argument(node, 0)))
    value = input_or_none(node, 1)
    axes = constant(value)
    if value is not None and axes is None:
        return False
    if axes is None or axes.size == 0:
        if integer(node, "noop_with_empty_axes", 0):
            edit.substitute(node, argument(node, 0))
            return True
        axes = np.arange(rank)
    wanted = np.array(sorted({int(a) % max(rank, 1) for a in axes.reshape(-1)}), np.int64)
    keep = integer(node, "keepdims", 1)
    edit.replace(node, node.op_type, [argument(node, 0), edit.constant("axes", wanted)], {"keepdims": keep})
    return True


def _split(node: ir.Node, edit: Edit) -> bool:
    rank = len(shape(argument(node, 0)))
    axis = integer(node, "axis", 0) % max(rank, 1)
    shapes = [s for v in node.outputs if (s := static_shape(v)) is not None]
    if len(shapes) < len(node.outputs):
        return False
    sizes = edit.constant("split", np.array([s[axis] for s in shapes], np.int64))
    node.resize_inputs(2)
    node.replace_input_with(1, sizes)
    set_attributes(node, {"axis": axis}, drop=("num_outputs",))
    return True


def _slice(node: ir.Node, edit: Edit) -> bool:
    size = shape(argument(node, 0))
    arrays = [optional_parameter(node, i) for i in (1, 2, 3, 4)]
    if any(a is None and input_or_none(node, i) is not None for i, a in enumerate(arrays, 1)):
        return False
    starts, ends = (np.array(parameter_integers(node, i), np.int64) for i in (1, 2))
    axes = np.arange(len(starts)) if arrays[2] is None else arrays[2].reshape(-1) % len(size)
    steps = np.ones(len(starts), np.int64) if arrays[3] is None else arrays[3].reshape(-1)
    rows = sorted(
        (int(axis), *_slice_range(int(start), int(end), int(step), size[axis]), int(step))
        for start, end, axis, step in zip(starts, ends, axes, steps)
    )
    columns = [np.array(c, np.int64) for c in zip(*rows)]
    names = ("axes", "starts", "ends", "steps")
    made = {name: edit.constant(name, column) for name, column in zip(names, columns)}
    inputs = [argument(node, 0), *(made[n] for n in ("starts", "ends", "axes", "steps"))]
    edit.replace(node, "Slice", inputs)
    return True


def _slice_range(start: int, end: int, step: int, size: int) -> tuple[int, int]:
    """(start, end) within the dimension: Python's own rule for slices, which ONNX follows."""
    first, last, _ = slice(start, end, step).indices(size)
    return first, last if last >= 0 else -(size + 1)


def _expand(node: ir.Node, edit: Edit) -> bool:
    target = np.array(shape(node.outputs[0]), np.int64)
    edit.replace(node, "Expand", [argument(node, 0), edit.constant("shape", target)])
    return True


def _gather(node: ir.Node, edit: Edit) -> bool:
    size = shape(argument(node, 0))
    axis = integer(node, "axis", 0) % len(size)
    modified = set_attributes(node, {"axis": axis})
    indices = optional_parameter(node, 1)
    if indices is not None and (indices < 0).any():
        wrapped = np.where(indices < 0, indices + size[axis], indices).astype(indices.dtype)
        node.replace_input_with(1, edit.constant(argument(node, 1).name, wrapped))
        modified = True
    return modified


def _resize(node: ir.Node, edit: Edit) -> bool:
    if text(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False  # which needs its roi
    size, out = shape(argument(node, 0)), shape(node.outputs[0])
    if size == out:
        edit.substitute(node, argument(node, 0))
        return True
    scales = optional_parameter(node, 2)
    if scales is not None and scales.size:
        axes = node.attributes.get_ints("axes") or range(len(size))
        full = np.ones(len(size))
        full[[a % len(size) for a in axes]] = scales
        if not np.allclose(full * size, out, rtol=1e-6, atol=0):
            return (
                set_attributes(node, {}, drop=("axes", "keep_aspect_ratio_policy"))
                if "axes" in node.attributes
                else False
            )
    sizes = edit.constant("sizes", np.array(out, np.int64))
    attributes = {k: a.value for k, a in node.attributes.items() if k not in ("axes", "keep_aspect_ratio_policy")}
    edit.replace(node, "Resize", [argument(node, 0), None, None, sizes], attributes)
    return True


def _recurrent(default_activations: tuple[str, ...]) -> Rewrite:
    def rewrite(node: ir.Node, edit: Edit) -> bool:
        x, recurrence = static_shape(node.inputs[0]), static_shape(node.inputs[2])
        if x is None or recurrence is None:
            return False
        attributes = node.attributes
        direction = attributes.get_string("direction", "forward")
        modified = set_attributes(node, {"direction": direction, "hidden_size": recurrence[-1]})
        activations = attributes.get_strings("activations")
        both = default_activations * (2 if direction == "bidirectional" else 1)
        if activations is not None and tuple(activations) == both:
            modified |= set_attributes(node, {}, drop=("activations",))
        lengths = optional_parameter(node, 4)
        if lengths is not None and (lengths == x[0]).all():
            node.replace_input_with(4, None)
            modified = True
        return modified

    return rewrite


PARAMETERS: dict[str, Rewrite] = {
    "ArgMax": _axis(0),
    "Concat": _axis(0),
    "Expand": _expand,
    "GRU": _recurrent(("Sigmoid", "Tanh")),
    "Gather": _gather,
    "LSTM": _recurrent(("Sigmoid", "Tanh", "Tanh")),
    "LayerNormalization": _axis(-1),
    "LogSoftmax": _axis(-1),
    "RNN": _recurrent(("Tanh",)),
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceProd": _reduce,
    "ReduceSum": _reduce,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _axis(-1),
    "Split": _split,
}
