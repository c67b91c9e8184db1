"""Resize: RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR, or gathers and a matrix where their rounding differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.channel_rules import images
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, bound_of, over_image
from edgecompress.graph.nodes import argument, integer, integers, optional_parameter, text
from edgecompress.graph.provenance import label
from edgecompress.graph.resize import COORDINATES, ROUNDING, interpolation
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import Example
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


def _lower_resize(ctx: Context, layer: Layer) -> None:
    node, x, y, int8 = layer.node, argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    mode = text(node, "mode", "nearest")
    coordinates = text(node, "coordinate_transformation_mode", "half_pixel")
    before, after, rank = shape(x), shape(y), len(shape(x))
    if (
        mode not in ("nearest", "linear")
        or coordinates not in COORDINATES
        or rank not in (3, 4)
        or before[:2] != after[:2]
        or integer(node, "antialias")
    ):
        raise UnsupportedModelError(
            f"{label(node)}: mode={mode!r}, coordinates={coordinates!r} from {before} to {after}; "
            "nearest and linear over the spatial dimensions of an image can be converted"
        )
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
    native = [linear_positions(n, out, align, half) for n, out in zip(*sizes)]
    if not all(
        np.allclose(np.clip(a, 0, n - 1), np.clip(b, 0, n - 1), atol=1e-5)
        for a, b, n in zip(positions, native, sizes[0])
    ):
        raise UnsupportedModelError(
            f"{label(node)}: bilinear Resize from {before} to {after} with scales {scales} samples other points "
            "than TFLite's kernel does; export it with sizes (or recompute_scale_factor=True) in place of scales"
        )
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
    mode = text(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        return f"operator Resize in mode {mode}"
    if node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        return "operator Resize with a crop"
    if integer(node, "antialias", 0):
        return "operator Resize with antialias"
    return constant_inputs(2, 3)(node)


def _renew_sizes(node: ir.Node, kept: Kept, renew: Renew) -> None:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        renew(node, 3, kept_shape(node.outputs[0], kept))


def _bounds(node: ir.Node, known: Known) -> Interval:
    return over_image(bound_of(known, 0), len(shape(node.outputs[0])))


def _batch(node: ir.Node, own: int, batch: int) -> dict[int, np.ndarray]:
    sizes = optional_parameter(node, 3)
    if sizes is None or not sizes.size or "axes" in node.attributes:
        return {}
    return {3: np.array([batch, *sizes[1:]], np.int64)}


def _torch(node: ir.Node) -> TorchFunction:
    """A matrix [out, in] for each dimension that changes: exact for every rounding and coordinate mode of ONNX."""
    import torch

    before, after = shape(argument(node, 0)), shape(node.outputs[0])
    coordinates = COORDINATES[text(node, "coordinate_transformation_mode", "half_pixel")]
    rounding = ROUNDING[text(node, "nearest_mode", "round_prefer_floor")]
    nearest = rounding if text(node, "mode", "nearest") == "nearest" else None
    given = optional_parameter(node, 2)
    ratios = [b / a for a, b in zip(before, after)] if given is None or not given.size else [float(s) for s in given]
    matrices = []
    for axis, (n, out, ratio) in enumerate(zip(before, after, ratios)):
        if n != out or ratio != 1:
            positions = coordinates(np.arange(out, dtype=np.float64), ratio, n, out)
            matrices.append((axis, torch.from_numpy(interpolation(positions, n, nearest))))

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
        ),
        accepts=_accepts,
        channels=images,
        bounds=_bounds,
        batch=_batch,
        change=_renew_sizes,
        torch=_torch,
        integer=Integer(SAME, passive=True, computes=True),
        tflite=_lower_resize,
        layout="channels",
    )
)
