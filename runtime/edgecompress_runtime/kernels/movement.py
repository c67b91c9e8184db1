"""Operators that move data: one strided copy does nearly all. Elements are 1, 2, 4 or 8 bytes, unread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgecompress_runtime.kernels.arithmetic import Array, Number, Values, i32, i64
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, Raw, call, prepares
from edgecompress_runtime.kernels.strides import Ints, broadcast, collapsed, contiguous, offset, row_count
from edgecompress_runtime.options import (
    REFLECT,
    BlockOptions,
    ConcatenationOptions,
    GatherOptions,
    MirrorPadOptions,
    Options,
)
from edgecompress_runtime.plan import Tensor

BITS = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def strided_copy(
    x: Array, y: Array, dims: Values, x_strides: Values, y_strides: Values, x_start: Number, y_start: Number
) -> None:
    """x_start, y_start: where the copy begins, in elements."""
    for row in range(row_count(dims)):
        x_row = i32(x_start + offset(row, dims, x_strides))
        y_row = i32(y_start + offset(row, dims, y_strides))
        for i in range(dims[5]):
            y[i32(y_row + i * y_strides[5])] = x[i32(x_row + i * x_strides[5])]


def fill(y: Array, value: Array, count: Number) -> None:
    """value: one element."""
    for i in range(count):
        y[i] = value[0]


def indexed_copy(x: Array, y: Array, dims: Values, rows: Array, columns: Array, inner: Number) -> None:
    """y [n, h, w, inner] from x by tables of offsets: rows [n * h] and columns [w]."""
    height, width = dims
    for r in range(height):
        for c in range(width):
            source, target = i32(rows[r] + columns[c]), i32((r * width + c) * inner)
            for i in range(inner):
                y[i32(target + i)] = x[i32(source + i)]


def select(condition: Array, a: Array, b: Array, y: Array, geometry: Values) -> None:
    """geometry: dims, and the strides of condition, a and b, of `strides.collapsed`."""
    dims, condition_strides, a_strides, b_strides = geometry
    for row in range(row_count(dims)):
        c_row = offset(row, dims, condition_strides)
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            if condition[i32(c_row + i * condition_strides[5])]:
                y[i32(y_row + i)] = a[i32(a_row + i * a_strides[5])]
            else:
                y[i32(y_row + i)] = b[i32(b_row + i * b_strides[5])]


def gather(x: Array, indices: Array, y: Array, outer: Number, length: Number, count: Number, inner: Number) -> None:
    """x [outer, length, inner], indices [count] -> y [outer, count, inner]; an index below 0 counts
    from the end, and one outside takes the nearest row."""
    for o in range(outer):
        for k in range(count):
            place = i64(indices[k])
            index = i32(min(max(place + length if place < 0 else place, 0), length - 1))
            source = i32((o * length + index) * inner)
            target = i32((o * count + k) * inner)
            for i in range(inner):
                y[i32(target + i)] = x[i32(source + i)]


# ---- preparation ----


def copy(
    x: Tensor,
    y: Tensor,
    dims: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    x_start: int = 0,
    y_start: int = 0,
) -> Call:
    """A call of `strided_copy` over dims, as few axes as they make.

    Where nothing lies in front of the start it is part of the address, so that copies of parts of one shape are alike.
    """
    if min((*x_strides, *y_strides), default=0) >= 0:
        return call(strided_copy, Raw(x, x_start), Raw(y, y_start), *collapsed(dims, x_strides, y_strides), 0, 0)
    return call(strided_copy, Raw(x), Raw(y), *collapsed(dims, x_strides, y_strides), x_start, y_start)


def dot(a: Sequence[int], b: Sequence[int]) -> int:
    """The sum of products: an offset, of positions and strides."""
    return sum(int(m) * int(n) for m, n in zip(a, b))


def ints(tensor: Tensor) -> list[int]:
    """A constant operand: axes, sizes, a permutation."""
    assert tensor.data is not None, f"tensor {tensor.name!r} must be constant"
    return [int(n) for n in tensor.data.ravel()]


@prepares("RESHAPE", of_any_type=True)
def _prepare_reshape(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return [copy(inputs[0], outputs[0], (inputs[0].size,), (1,), (1,))]


@prepares("TRANSPOSE", of_any_type=True)
def _prepare_transpose(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    strides = contiguous(x.shape)
    return [copy(x, y, y.shape, [strides[a] for a in ints(inputs[1])], contiguous(y.shape))]


@prepares("CONCATENATION", of_any_type=True)
def _prepare_concatenation(inputs: Inputs, outputs: Outputs, options: ConcatenationOptions) -> list[Call]:
    (y,) = outputs
    axis, strides = options.axis % len(y.shape), contiguous(y.shape)
    starts = np.cumsum([0, *(x.shape[axis] for x in inputs)])
    return [
        copy(x, y, x.shape, contiguous(x.shape), strides, 0, int(start) * strides[axis])
        for x, start in zip(inputs, starts)
    ]


@prepares("SPLIT", of_any_type=True)
def _prepare_split(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _split(inputs[1], outputs, ints(inputs[0])[0])


@prepares("SPLIT_V", of_any_type=True)
def _prepare_split_v(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    return _split(inputs[0], outputs, ints(inputs[2])[0])


def _split(x: Tensor, outputs: Sequence[Tensor], axis: int) -> list[Call]:
    axis, strides = axis % len(x.shape), contiguous(x.shape)
    starts = np.cumsum([0, *(y.shape[axis] for y in outputs)])
    return [
        copy(x, y, y.shape, strides, contiguous(y.shape), int(start) * strides[axis])
        for y, start in zip(outputs, starts)
    ]


@prepares("SLICE", of_any_type=True)
def _prepare_slice(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    strides = contiguous(x.shape)
    return [copy(x, y, y.shape, strides, contiguous(y.shape), dot(ints(inputs[1]), strides))]


@prepares("STRIDED_SLICE", of_any_type=True)
def _prepare_strided_slice(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    """Begin, end and step for every axis, no masks: the form that edgecompress writes."""
    x, begin, step, (y,) = inputs[0], ints(inputs[1]), ints(inputs[3]), outputs
    strides = contiguous(x.shape)
    steps = [s * n for s, n in zip(strides, step)]
    return [copy(x, y, y.shape, steps, contiguous(y.shape), dot(begin, strides))]


@prepares("REVERSE_V2", of_any_type=True)
def _prepare_reverse(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    axes = [a % len(x.shape) for a in ints(inputs[1])]
    strides = [-s if a in axes else s for a, s in enumerate(contiguous(x.shape))]
    start = -sum((x.shape[a] - 1) * strides[a] for a in axes)
    return [copy(x, y, y.shape, strides, contiguous(y.shape), start)]


@prepares("BROADCAST_TO", of_any_type=True)
def _prepare_broadcast_to(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    return [copy(x, y, y.shape, broadcast(x.shape, y.shape), contiguous(y.shape))]


@prepares("TILE", of_any_type=True)
def _prepare_tile(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    x, (y,) = inputs[0], outputs
    return [take(x, y, [np.tile(np.arange(n), m) for n, m in zip(x.shape, ints(inputs[1]))])]


@prepares("DEPTH_TO_SPACE", of_any_type=True)
def _prepare_depth_to_space(inputs: Inputs, outputs: Outputs, options: BlockOptions) -> list[Call]:
    """Channels are (row in block, column in block, channel)."""
    x, (y,) = inputs[0], outputs
    return [copy(x, y, *_blocks(x.shape, y.shape[3], options.block_size))]


@prepares("SPACE_TO_DEPTH", of_any_type=True)
def _prepare_space_to_depth(inputs: Inputs, outputs: Outputs, options: BlockOptions) -> list[Call]:
    x, (y,) = inputs[0], outputs
    dims, deep, wide = _blocks(y.shape, x.shape[3], options.block_size)
    return [copy(x, y, dims, wide, deep)]


def _blocks(deep: Sequence[int], channels: int, block: int) -> tuple[Ints, Ints, Ints]:
    """(dims, strides of the deep tensor [n, h, w, block * block * c], strides of the wide one) for the axes
    n, h, row in block, w, column in block, channel."""
    n, h, w, depth = deep
    dims = n, h, block, w, block, channels
    return dims, (h * w * depth, w * depth, block * channels, depth, channels, 1), contiguous(dims)


@prepares("PAD", "PADV2", of_any_type=True)
def _prepare_pad(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    """PAD fills with real zero (int8: the zero point), PADV2 with its third operand."""
    x, (y,) = inputs[0], outputs
    front, strides = ints(inputs[1])[::2], contiguous(y.shape)
    if len(inputs) > 2:
        assert inputs[2].data is not None
        value = inputs[2].data.reshape(-1)
    else:
        value = np.array([y.zero if y.is_int8 else 0], y.dtype)
    bits = np.ascontiguousarray(value).view(BITS[y.dtype.itemsize])
    inner = copy(x, y, x.shape, contiguous(x.shape), strides, 0, dot(front, strides))
    return [call(fill, Raw(y), bits, y.size), inner]


@prepares("MIRROR_PAD", of_any_type=True)
def _prepare_mirror_pad(inputs: Inputs, outputs: Outputs, options: MirrorPadOptions) -> list[Call]:
    """Mode 0 reflects without repeating the edge, 1 with it. The last axis is taken by the element."""
    x, (y,) = inputs[0], outputs
    amounts = inputs[1].data.reshape(-1, 2)
    width: Literal["reflect", "symmetric"] = "reflect" if options.mode == REFLECT else "symmetric"
    positions = [np.pad(np.arange(n), tuple(pair), mode=width) for n, pair in zip(x.shape, amounts)]
    return [take(x, y, positions)]


def take(x: Tensor, y: Tensor, positions: Sequence[np.ndarray]) -> Call:
    """y[i, j, ...] = x[positions[0][i], positions[1][j], ...]. Whole last axes are copied as runs."""
    offsets = [(p * s).astype(np.int32) for p, s in zip(positions, contiguous(x.shape))]
    inner = 1
    if len(offsets) > 1 and np.array_equal(positions[-1], np.arange(x.shape[-1])):
        inner, offsets = x.shape[-1], offsets[:-1]
    rows = np.zeros(1, np.int32)
    for table in offsets[:-1]:
        rows = (rows[:, None] + table).reshape(-1)
    return call(indexed_copy, Raw(x), Raw(y), (len(rows), len(offsets[-1])), rows, offsets[-1], inner)


@prepares("GATHER", of_any_type=True)
def _prepare_gather(inputs: Inputs, outputs: Outputs, options: GatherOptions) -> list[Call]:
    x, indices, (y,) = inputs[0], inputs[1], outputs
    axis = options.axis % len(x.shape)
    inner = int(np.prod(x.shape[axis + 1 :], dtype=np.int64))
    outer = x.size // (x.shape[axis] * inner)
    return [call(gather, Raw(x), indices, Raw(y), outer, x.shape[axis], indices.size, inner)]


@prepares("SELECT_V2", of_any_type=True)
def _prepare_select(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    condition, a, b, (y,) = *inputs[:3], outputs
    strides = [broadcast(t.shape, y.shape) for t in (condition, a, b)]
    return [call(select, Raw(condition), Raw(a), Raw(b), Raw(y), collapsed(y.shape, *strides))]
