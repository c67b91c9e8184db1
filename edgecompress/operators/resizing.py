"""Resize: RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR, or gathers and a matrix where their rounding differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from edgecompress.graph.batch_axes import Growth
from edgecompress.graph.channel_axes import ChannelAxes, shape
from edgecompress.graph.channel_rules import images
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, bound_of, over_image
from edgecompress.graph.nodes import argument, integer, integers, optional_parameter, text
from edgecompress.graph.provenance import label
from edgecompress.graph.resize import COORDINATES, ROUNDING
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import OPSET, Example
from edgecompress.operators.movement import kept_shape
from edgecompress.operators.record import SAME, Integer, Kept, Operator, Renew, TorchFunction, register

if TYPE_CHECKING:
    from torch import Tensor

# TFLite flags (align_corners, half_pixel_centers)
FLAGS = {
    "half_pixel": (False, True),
    "pytorch_half_pixel": (False, True),
    "align_corners": (True, False),
    "asymmetric": (False, False),
}


# ---- as matrices ----


def _matrix_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """A product with a matrix along each axis that changes, where TFLite has no operator that samples the same."""
    if _has_kernel(node):
        return None
    x = argument(node, 0)
    rank = len(shape(x))
    for axis, matrix in _matrices(node):
        order = [a for a in range(rank) if a != axis] + [axis]
        moved = x if axis == rank - 1 else op.Transpose(x, perm=order)
        x = op.MatMul(moved, np.ascontiguousarray(matrix.T))
        x = x if axis == rank - 1 else op.Transpose(x, perm=[order.index(a) for a in range(rank)])
    return [x]


def _has_kernel(node: ir.Node) -> bool:
    """Whether RESIZE_NEAREST_NEIGHBOR, RESIZE_BILINEAR or gathers sample at the same places, over the spatial axes."""
    mode, coordinates = text(node, "mode", "nearest"), text(node, "coordinate_transformation_mode", "half_pixel")
    before, after = shape(argument(node, 0)), shape(node.outputs[0])
    if len(before) not in (3, 4) or before[:2] != after[:2] or integer(node, "antialias"):
        return False
    if mode == "nearest":
        return coordinates in FLAGS
    if mode != "linear" or coordinates not in FLAGS:
        return False
    scales = _scales(node, before, after)
    return all(
        np.allclose(
            np.clip(COORDINATES[coordinates](np.arange(out, dtype=np.float64), scale, n, out), 0, n - 1),
            np.clip(linear_positions(n, out, *FLAGS[coordinates]), 0, n - 1),
            atol=1e-5,
        )
        for n, out, scale in zip(before[2:], after[2:], scales[2:])
    )


def _matrices(node: ir.Node) -> list[tuple[int, np.ndarray]]:
    """(axis, matrix [out, in]) for each axis along which the node changes something: what ONNX Runtime makes of the
    rows of a unit matrix along that axis alone. Exact for every mode, since none mixes axes."""
    before, after = shape(argument(node, 0)), shape(node.outputs[0])
    rank, scales, roi = len(before), _scales(node, before, after), optional_parameter(node, 1)
    axes = integers(node, "axes") or list(range(rank))
    found = []
    for axis, (n, out, scale) in enumerate(zip(before, after, scales)):
        bounds = [0.0, 1.0]
        if roi is not None and roi.size and axis in axes:
            bounds = [float(roi[axes.index(axis) + side * len(axes)]) for side in (0, 1)]
        if (n, scale, bounds) != (out, 1.0, [0.0, 1.0]):
            found.append((axis, _matrix(node, n, out, scale, bounds)))
    return found


def _matrix(node: ir.Node, n: int, out: int, scale: float, bounds: list[float]) -> np.ndarray:
    import onnxruntime

    attributes = {k: a.value for k, a in node.attributes.items() if k not in ("axes", "keep_aspect_ratio_policy")}
    by_scale = optional_parameter(node, 2)
    given = by_scale is not None and bool(by_scale.size)
    arrays: dict[str, np.ndarray] = {
        "roi": np.array([0, 0, 0, bounds[0], 1, 1, 1, bounds[1]], np.float32),
        "scales": np.array([1, 1, 1, scale], np.float32),
        "sizes": np.array([1, 1, n, out], np.int64),
    }
    inputs = ["x", "roi", "scales" if given else "", "" if given else "sizes"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Resize", inputs[: 3 if given else 4], ["y"], **attributes)],
        "resize",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, n, n])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, n, out])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in inputs],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    matrix: np.ndarray = session.run(None, {"x": np.eye(n, dtype=np.float32)[None, None]})[0][0, 0].T
    return matrix


# ---- TFLite ----


def _lower_resize(ctx: Context, layer: Layer) -> None:
    node, x, y, int8 = layer.node, argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    mode = text(node, "mode", "nearest")
    coordinates = text(node, "coordinate_transformation_mode", "half_pixel")
    before, after, rank = shape(x), shape(y), len(shape(x))
    form = forms.channels_last(rank)
    scales = _scales(node, before, after)
    positions = [
        COORDINATES[coordinates](np.arange(after[a], dtype=np.float64), scales[a], before[a], after[a])
        for a in range(2, rank)
    ]
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    sizes = ctx.tensor(source).shape[1:3], ctx.tensor(target).shape[1:3]
    if rank == 3:
        positions = [np.zeros(1), *positions]
    align, half = FLAGS[coordinates]
    if mode == "nearest":
        rounding = ROUNDING[text(node, "nearest_mode", "round_prefer_floor")]
        picked = [np.clip(rounding(p), 0, n - 1).astype(np.int32) for p, n in zip(positions, sizes[0])]
        native = [nearest_indices(n, out, align, half) for n, out in zip(*sizes)]
        if all(np.array_equal(a, b) for a, b in zip(picked, native)):
            ctx.op(
                "RESIZE_NEAREST_NEIGHBOR",
                [source, ctx.ints(sizes[1])],
                [target],
                alignCorners=align,
                halfPixelCenters=half,
            )
        else:
            _gather_rows(ctx, source, target, picked)
        return
    ctx.op("RESIZE_BILINEAR", [source, ctx.ints(sizes[1])], [target], alignCorners=align, halfPixelCenters=half)


def nearest_indices(n: int, out: int, align: bool, half: bool) -> np.ndarray:
    """Input index of each output position as TFLite's reference kernel picks it (resize_nearest_neighbor.h)."""
    scale = np.float32(n - 1) / np.float32(out - 1) if align and out > 1 else np.float32(n) / np.float32(out)
    position = (np.arange(out, dtype=np.float32) + np.float32(0.5 if half else 0.0)) * scale
    index = np.floor(position + np.float32(0.5)) if align else np.floor(position)
    return np.clip(index, 0, n - 1).astype(np.int32)


def linear_positions(n: int, out: int, align: bool, half: bool) -> np.ndarray:
    """Where TFLite's bilinear kernel samples (resize_bilinear.h)."""
    scale = (n - 1) / (out - 1) if align and out > 1 else n / out
    i = np.arange(out)
    return (i + 0.5) * scale - 0.5 if half else i * scale


def _gather_rows(ctx: Context, source: int, target: int, picked: list[np.ndarray]) -> None:
    """Nearest neighbour with any rounding: a GATHER of rows, then one of columns."""
    tensor = ctx.tensor(source)
    rows = ctx.like(source, f"{tensor.name}/rows", (tensor.shape[0], len(picked[0]), *tensor.shape[2:]))
    ctx.op("GATHER", [source, ctx.constant(picked[0])], [rows], axis=1)
    ctx.op("GATHER", [rows, ctx.constant(picked[1])], [target], axis=2)


def _scales(node: ir.Node, before: tuple[int, ...], after: tuple[int, ...]) -> list[float]:
    """ONNX uses the given scales, not the ratio of sizes, where both are there to differ."""
    given = optional_parameter(node, 2)
    ratio = [b / a for a, b in zip(before, after)]
    if given is None or given.size == 0:
        return ratio
    result = list(ratio)
    for axis, scale in zip(integers(node, "axes") or range(len(before)), given.ravel()):
        result[axis] = float(scale)
    return result


def _accepts(node: ir.Node) -> str | None:
    if text(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize" and _leaves(node):
        return "operator Resize with a crop beyond the image"
    if argument(node, 0).dtype != ir.DataType.FLOAT and not _has_kernel(node):
        return f"operator Resize in mode {text(node, 'mode', 'nearest')} on integers"
    return constant_inputs(1, 2, 3)(node)


def _leaves(node: ir.Node) -> bool:
    """Whether the crop goes beyond the image, where values are filled in."""
    roi = optional_parameter(node, 1)
    return roi is None or bool((roi < 0).any() or (roi > 1).any())


def _renew_sizes(node: ir.Node, kept: Kept, renew: Renew) -> None:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        renew(node, 3, kept_shape(node.outputs[0], kept))


def _channels(node: ir.Node, axes: ChannelAxes) -> None:
    """As of any image; roi and scales have a number for each axis, which stay."""
    images(node, axes)
    for value in node.inputs[1:3]:
        if value is not None and value in axes:
            axes.fix(axes.ids(value, 0), f"{label(node)} has one for each axis")


def _bounds(node: ir.Node, known: Known) -> Interval:
    found = over_image(bound_of(known, 0), len(shape(node.outputs[0])))
    if text(node, "mode", "nearest") == "cubic":  # goes beyond its input
        return Interval(np.full_like(found.low, -np.inf), np.full_like(found.high, np.inf))
    return found


def _batch(node: ir.Node, growth: Growth) -> dict[int, np.ndarray | None] | None:
    sizes, place = optional_parameter(node, 3), growth.place(node)
    if sizes is None or not sizes.size or "axes" in node.attributes or place is None:
        return {}
    return {3: growth.grown_at(sizes, place.axis)}


def _torch(node: ir.Node) -> TorchFunction:
    """A matrix [out, in] for each dimension that changes: exact for every rounding and coordinate mode of ONNX."""
    import torch

    matrices = [(axis, torch.from_numpy(matrix)) for axis, matrix in _matrices(node)]

    def sample(x: Tensor, *parameters: Tensor) -> Tensor:
        for axis, matrix in matrices:
            x = torch.matmul(x.movedim(axis, -1), matrix.to(x.device).T).movedim(-1, axis)
        return x

    return sample


SIZES = np.array([1, 4, 12, 10])


register(
    Operator(
        "Resize",
        examples=(
            Example("y = Resize(x, , , s)", constants={"s": SIZES}),
            Example(
                'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , s)',
                constants={"s": SIZES},
            ),
            Example('y = Resize<mode="linear">(x, , , s)', constants={"s": SIZES}),
            Example(
                'y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , , s)',
                constants={"s": SIZES},
            ),
            Example('y = Resize<mode="cubic">(x, , , s)', constants={"s": SIZES}),
            Example('y = Resize<mode="linear", antialias=1>(x, , , s)', constants={"s": [1, 4, 3, 2]}),
            Example('y = Resize<mode="linear">(x, , s)', constants={"s": np.array([1, 1, 0.6, 0.7], np.float32)}),
        ),
        accepts=_accepts,
        channels=_channels,
        bounds=_bounds,
        batch=_batch,
        change=_renew_sizes,
        torch=_torch,
        parts=_matrix_parts,
        integer_parts=_matrix_parts,
        integer=Integer(SAME, passive=True, computes=True, accepts=_has_kernel),
        tflite=_lower_resize,
        layout="channels",
    )
)
