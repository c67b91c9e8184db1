"""Operators that read images between their pixels, or put patches together: Gather of pixels, weighted and added up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.nodes import argument, integer, integers, parameter_integers, text
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import Example
from edgecompress.operators.record import Operator, register

CUBIC = -0.75  # of the cubic convolution (Keys 1981), as ONNX and PyTorch have it
INT32 = int(ir.DataType.INT32)
Move = Callable[[ir.Value], ir.Value]  # a position -> one within the image
Tap = tuple[ir.Value, "ir.Value | None"]  # position of a pixel along an axis, as float, and its weight


def _taps(op: Parts, at: ir.Value, mode: str) -> list[Tap]:
    """The pixels along one axis that a place between them is made of; they may lie outside of the image."""
    if mode == "nearest":
        return [(op.Round(at), None)]
    below = op.Floor(at)
    rest = op.Sub(at, below)
    if mode in ("linear", "bilinear"):
        return [(below, op.Sub(1.0, rest)), (op.Add(below, 1.0), rest)]
    taps: list[Tap] = []
    for step in (-1.0, 0.0, 1.0, 2.0):
        distance = op.Abs(op.Sub(rest, step))
        taps.append((op.Add(below, step) if step else below, _cubic(op, distance, is_near=step in (0.0, 1.0))))
    return taps


def _cubic(op: Parts, d: ir.Value, *, is_near: bool) -> ir.Value:
    """((a + 2) d - (a + 3)) d^2 + 1 up to a distance of 1, else a (((d - 5) d + 8) d - 4)."""
    if is_near:
        return op.Add(op.Mul(op.Mul(op.Sub(op.Mul(d, CUBIC + 2), CUBIC + 3), d), d), 1.0)
    return op.Mul(op.Sub(op.Mul(op.Add(op.Mul(op.Sub(d, 5.0), d), 8.0), d), 4.0), CUBIC)


def _inside(op: Parts, taps: Sequence[Tap], size: int, outside: Move | None) -> list[Tap]:
    """The taps within 0..size - 1. outside: moves positions into the image; None: pixels beyond it are 0."""
    kept = []
    for place, weight in taps:
        if outside is not None:
            place = outside(place)
        bounded = op.Clip(place, 0.0, float(size - 1))
        if outside is None:
            is_pixel = op.Cast(op.Equal(bounded, place), to=int(ir.DataType.FLOAT))
            weight = is_pixel if weight is None else op.Mul(weight, is_pixel)
        kept.append((bounded, weight))
    return kept


def _gathered(
    op: Parts, rows: ir.Value, axes: Sequence[Sequence[Tap]], sizes: Sequence[int], places: Sequence[int]
) -> ir.Value:
    """The weighted sum over all taps. rows: [images * pixels, channels]. places: shape [images..., points] of the
    positions. [images..., points, channels]
    """
    total: ir.Value | None = None
    *images, _ = places
    start = prod(sizes) * np.arange(prod(images)).reshape(*images, *[1] * (len(places) - len(images)))
    strides = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
    for taps in itertools.product(*axes):
        row, weight = op.constant(_float32(start)), None
        for (place, own), stride in zip(taps, strides):
            row = op.Add(row, place if stride == 1 else op.Mul(place, float(stride)))
            weight = own if weight is None else weight if own is None else op.Mul(weight, own)
        pixels = op.Gather(rows, op.Cast(row, to=INT32), axis=0)
        pixels = pixels if weight is None else op.Mul(pixels, op.Reshape(weight, [*places, 1]))
        total = pixels if total is None else op.Add(total, pixels)
    assert total is not None
    return total


def _as_rows(op: Parts, x: ir.Value, groups: int = 1) -> ir.Value:
    """[n, c, ...] -> [n * groups * pixels, c / groups]."""
    count, channels, *sizes = shape(x)
    flat = op.Reshape(x, [count * groups, channels // groups, prod(sizes)])
    return op.Reshape(op.Transpose(flat, perm=[0, 2, 1]), [-1, channels // groups])


# ---- GridSample and AffineGrid ----


def _grid_sample_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Grid coordinates of -1 and 1 are the centres (align_corners) or the edges of the first and last pixel."""
    x, grid, mode = argument(node, 0), argument(node, 1), text(node, "mode", "linear")
    count, channels, *sizes = shape(x)
    out, padding, aligned = shape(grid)[1:-1], text(node, "padding_mode", "zeros"), bool(integer(node, "align_corners"))
    points = op.Reshape(grid, [count, prod(out), len(sizes)])
    axes = []
    for axis, size in enumerate(sizes):
        at = op.Gather(points, np.int64(len(sizes) - 1 - axis), axis=2)
        scale, shift = ((size - 1) / 2, (size - 1) / 2) if aligned else (size / 2, (size - 1) / 2)
        at = op.Add(op.Mul(at, scale), shift)
        outside = OUTSIDE[padding](op, size, 0.0 if aligned else 0.5)
        at = outside(at) if outside is not None and mode not in ("cubic", "bicubic") else at
        axes.append(_inside(op, _taps(op, at, mode), size, outside))
    sampled = _gathered(op, _as_rows(op, x), axes, sizes, [count, prod(out)])
    return [op.Reshape(op.Transpose(sampled, perm=[0, 2, 1]), [count, channels, *out])]


def _border(op: Parts, size: int, edge: float) -> Move:
    """Moves a position to the nearest pixel."""
    return lambda place: op.Clip(place, 0.0, float(size - 1))


def _reflection(op: Parts, size: int, edge: float) -> Move:
    """Moves a position into the image as mirrors at both ends do, which lie `edge` beyond the last pixels."""
    low, span = -edge, size - 1 + 2 * edge

    def reflect(place: ir.Value) -> ir.Value:
        if span == 0:
            return op.Mul(place, 0.0)
        far = op.Abs(op.Sub(place, low))
        turn = op.Sub(far, op.Mul(op.Floor(op.Mul(far, 1 / (2 * span))), 2 * span))
        return op.Sub(span + low, op.Abs(op.Sub(turn, span)))

    return reflect


OUTSIDE: dict[str, Callable[[Parts, int, float], Move | None]] = {
    "zeros": lambda op, size, edge: None, "border": _border, "reflection": _reflection,
}  # fmt: skip


def _affine_grid_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """The coordinates of each pixel, and 1, times the matrix."""
    count, _, *sizes = parameter_integers(node, 1)
    aligned = bool(integer(node, "align_corners"))
    lines = [np.linspace(-1, 1, n) if aligned else (2 * np.arange(n) + 1) / n - 1 for n in sizes]
    places = np.stack([*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(sizes)], axis=-1)
    matrix = op.Transpose(argument(node, 0), perm=[0, 2, 1])
    grid = op.MatMul(places.reshape(-1, len(sizes) + 1).astype(np.float32), matrix)
    return [op.Reshape(grid, [count, *sizes, len(sizes)])]


# ---- patches ----


def _windows(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> tuple[list[int], np.ndarray]:
    """The number of windows along each axis, and where each element of each window lies: [axes, elements, windows]."""
    rank = len(kernel)
    counts = [
        (n + pads[i] + pads[i + rank] - d * (k - 1) - 1) // s + 1
        for i, (n, k, s, d) in enumerate(zip(size, kernel, strides, dilations))
    ]
    inner, outer = np.indices(kernel).reshape(rank, -1, 1), np.indices(counts).reshape(rank, 1, -1)
    step, stride, before = (np.asarray(a)[:, None, None] for a in (dilations, strides, pads[:rank]))
    return counts, inner * step + outer * stride - before


def _image_attributes(node: ir.Node, rank: int) -> tuple[list[int], list[int], list[int]]:
    """strides, dilations, pads"""
    one = [1] * rank
    return integers(node, "strides", one), integers(node, "dilations", one), integers(node, "pads", [0] * 2 * rank)


def _col2im_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Each pixel is the sum of the elements of patches that lie on it: a Gather for each pixel, with zeros."""
    x, size, kernel = argument(node, 0), parameter_integers(node, 1), parameter_integers(node, 2)
    count, columns, patches = shape(x)
    channels = columns // prod(kernel)
    _, places = _windows(size, kernel, *_image_attributes(node, len(size)))
    valid = ((places >= 0) & (places < np.asarray(size)[:, None, None])).all(0)
    pixels = np.ravel_multi_index(tuple(np.where(valid, places, 0)), tuple(size))
    elements = prod(kernel) * patches
    lists: list[list[int]] = [[] for _ in range(prod(size))]
    for element, pixel in zip(np.flatnonzero(valid), pixels[valid]):
        lists[pixel].append(int(element))
    most = max(1, *(len(own) for own in lists))
    table = np.array([own + [elements] * (most - len(own)) for own in lists])
    flat = op.Concat(op.Reshape(x, [count, channels, elements]), np.zeros((count, channels, 1), np.float32), axis=2)
    total = op.ReduceSum(op.Gather(flat, table, axis=2), np.array([3]), keepdims=0)
    return [op.Reshape(total, [count, channels, *size])]


def _deform_conv_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Each tap of the kernel reads beside its place, between pixels, which are 0 outside of the image."""
    x, weight, offset = (argument(node, i) for i in range(3))
    count, channels, *size = shape(x)
    outputs, kernel = shape(weight)[0], shape(weight)[2:]
    groups, parts = integer(node, "group", 1), integer(node, "offset_group", 1)
    out, places = _windows(size, kernel, *_image_attributes(node, 2))
    taps, points = prod(kernel), prod(out)
    moved = op.Reshape(offset, [count * parts, taps, 2, points])
    axes = []
    for i, n in enumerate(size):
        at = op.Add(op.Gather(moved, np.int64(i), axis=2), _float32(places[i]))
        axes.append(_inside(op, _taps(op, op.Reshape(at, [count * parts, taps * points]), "linear"), n, None))
    sampled = _gathered(op, _as_rows(op, x, parts), axes, size, [count * parts, taps * points])
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        sampled = op.Mul(sampled, op.Reshape(argument(node, 4), [count * parts, taps * points, 1]))
    columns = op.Reshape(
        op.Transpose(sampled, perm=[0, 2, 1]), [count, groups, channels // groups * taps, points]
    )  # channels of a group lie together, each with its taps
    matrix = op.Reshape(weight, [1, groups, outputs // groups, channels // groups * taps])
    y = op.Reshape(op.MatMul(matrix, columns), [count, outputs, *out])
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        y = op.Add(y, op.Reshape(argument(node, 3), [outputs, 1, 1]))
    return [y]


def _float32(array: np.ndarray) -> np.ndarray:
    """Whole numbers as float32, which parts would take for int64."""
    return np.asarray(array, np.float32)


def _accepts_image(node: ir.Node) -> str | None:
    rank = len(shape(argument(node, 0)))
    return None if rank == 4 else f"operator {node.op_type} in {rank - 2} dimensions (2 are supported)"


GRID = {"x": (1, 3, 5, 4), "g": (1, 6, 2, 2)}
OFFSETS = {"x": (1, 4, 5, 6), "o": (1, 8, 4, 5)}

register(
    Operator(
        "GridSample",
        examples=(
            Example("y = GridSample(x, g)", GRID),
            Example('y = GridSample<mode="nearest", padding_mode="border", align_corners=1>(x, g)', GRID),
            Example('y = GridSample<mode="cubic", padding_mode="reflection">(x, g)', GRID),
        ),
        parts=_grid_sample_parts,
    ),
    Operator(
        "AffineGrid",
        examples=(Example("y = AffineGrid(x, s)", {"x": (2, 2, 3)}, constants={"s": [2, 3, 5, 6]}),),
        accepts=constant_inputs(1),
        parts=_affine_grid_parts,
    ),
    Operator(
        "Col2Im",
        examples=(
            Example(
                "y = Col2Im<strides=[2,1], pads=[1,0,0,1]>(x, i, b)",
                {"x": (1, 12, 15)},
                constants={"i": [6, 5], "b": [2, 2]},
            ),
        ),
        accepts=constant_inputs(1, 2),
        parts=_col2im_parts,
    ),
    Operator(
        "DeformConv",
        examples=(Example("y = DeformConv(x, w, o, b)", OFFSETS, {"w": (3, 4, 2, 2), "b": (3,)}),),
        accepts=_accepts_image,
        parts=_deform_conv_parts,
    ),
)
