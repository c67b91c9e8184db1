"""Resize: RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR, or gathers and a matrix where their rounding differs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.emit.tflite.registry import lowering
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.fusion import Layer
from edgecompress.graph.resize import COORDINATES, ROUNDING
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context, shape

# TFLite flags (align_corners, half_pixel_centers)
FLAGS = {"half_pixel": (False, True), "pytorch_half_pixel": (False, True), "align_corners": (True, False),
         "asymmetric": (False, False)}  # fmt: skip


def text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


@lowering("Resize")
def resize(ctx: Context, layer: Layer) -> None:
    node, x, y, int8 = layer.node, layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    mode = text(node, "mode", "nearest")
    coordinates = text(node, "coordinate_transformation_mode", "half_pixel")
    before, after, rank = shape(x), shape(y), len(shape(x))
    if (
        mode not in ("nearest", "linear")
        or coordinates not in COORDINATES
        or rank not in (3, 4)
        or before[:2] != after[:2]
        or _integer(node, "antialias")
    ):
        raise UnsupportedModelError(
            f"node {node.name!r}: Resize mode={mode!r}, coordinates={coordinates!r} from {before} to {after}; "
            "nearest and linear over the spatial dimensions of an image can be converted"
        )
    form = forms.channels_last(rank)
    scales = _scales(ctx, node, before, after)
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
            gather_rows(ctx, source, target, picked)
        return
    native = [linear_positions(n, out, align, half) for n, out in zip(*sizes)]
    if not all(
        np.allclose(np.clip(a, 0, n - 1), np.clip(b, 0, n - 1), atol=1e-5)
        for a, b, n in zip(positions, native, sizes[0])
    ):
        raise UnsupportedModelError(
            f"node {node.name!r}: bilinear Resize from {before} to {after} with scales {scales} samples other points "
            "than TFLite's; export it with sizes (or recompute_scale_factor=True) in place of scales"
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


def gather_rows(ctx: Context, source: int, target: int, picked: list[np.ndarray]) -> None:
    """Nearest neighbour with any rounding: a GATHER of rows, then one of columns."""
    tensor = ctx.tensor(source)
    rows = ctx.like(source, f"{tensor.name}/rows", (tensor.shape[0], len(picked[0]), *tensor.shape[2:]))
    ctx.op("GATHER", [source, ctx.constant(picked[0])], [rows], axis=1)
    ctx.op("GATHER", [rows, ctx.constant(picked[1])], [target], axis=2)


def _scales(ctx: Context, node: ir.Node, before: tuple[int, ...], after: tuple[int, ...]) -> list[float]:
    """ONNX uses the given scales, not the ratio of sizes, where both are there to differ."""
    given = ctx.array(node.inputs[2]) if len(node.inputs) > 2 else None
    ratio = [b / a for a, b in zip(before, after)]
    if given is None or given.size == 0:
        return ratio
    result = list(ratio)
    axes = node.attributes.get("axes")
    for axis, scale in zip(range(len(before)) if axes is None else axes.as_ints(), given.ravel()):
        result[axis] = float(scale)
    return result


def _integer(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0
