"""RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR of x [n, h, w, c]."""

from __future__ import annotations

import numpy as np

from edgecompress_runtime.kernels.arithmetic import Array, Values, f32, i32, i64, round_half_away
from edgecompress_runtime.kernels.movement import take
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.options import ResizeOptions

ONE = 1 << 10  # int8: positions have 10 fractional bits


def resize_bilinear(x: Array, y: Array, shapes: Values, rows: Values, columns: Values) -> None:
    """int8. shapes: of x and y. rows: top and bottom [h], rows of x, and the bottom one's weight in 1/1024 [h].
    columns: left, right and weight [w]."""
    (batches, height, width, channels), (_, out_h, out_w, _) = shapes
    (top, bottom, down), (left, right, across) = rows, columns
    for n in range(batches):
        for r in range(out_h):
            upper, lower = i32((n * height + top[r]) * width), i32((n * height + bottom[r]) * width)
            for k in range(out_w):
                a, b = i32((upper + left[k]) * channels), i32((upper + right[k]) * channels)
                c, d = i32((lower + left[k]) * channels), i32((lower + right[k]) * channels)
                v, h = down[r], across[k]
                a_weight, b_weight = i32(i32(ONE - v) * i32(ONE - h)), i32(i32(ONE - v) * h)
                c_weight, d_weight = i32(v * i32(ONE - h)), i32(v * h)
                target = i32(((n * out_h + r) * out_w + k) * channels)
                for i in range(channels):
                    acc = i64(x[i32(a + i)]) * a_weight + i64(x[i32(b + i)]) * b_weight
                    acc += i64(x[i32(c + i)]) * c_weight + i64(x[i32(d + i)]) * d_weight
                    half = i64(ONE * ONE // 2)
                    # halves away from zero, the division towards zero
                    y[i32(target + i)] = (acc + half) >> i64(20) if acc > 0 else -((half - acc) >> i64(20))


def resize_bilinear_float(x: Array, y: Array, shapes: Values, rows: Values, columns: Values) -> None:
    """The same with float32 weights."""
    (batches, height, width, channels), (_, out_h, out_w, _) = shapes
    (top, bottom, down), (left, right, across) = rows, columns
    for n in range(batches):
        for r in range(out_h):
            upper, lower = i32((n * height + top[r]) * width), i32((n * height + bottom[r]) * width)
            for k in range(out_w):
                a, b = i32((upper + left[k]) * channels), i32((upper + right[k]) * channels)
                c, d = i32((lower + left[k]) * channels), i32((lower + right[k]) * channels)
                v, h = down[r], across[k]
                target = i32(((n * out_h + r) * out_w + k) * channels)
                for i in range(channels):
                    above = x[i32(a + i)] * (f32(1) - v) * (f32(1) - h) + x[i32(c + i)] * v * (f32(1) - h)
                    y[i32(target + i)] = above + x[i32(b + i)] * (f32(1) - v) * h + x[i32(d + i)] * v * h


@prepares("RESIZE_NEAREST_NEIGHBOR")
def _prepare_nearest(inputs: Inputs, outputs: Outputs, options: ResizeOptions) -> list[Call]:
    x, (y,) = inputs[0], outputs
    flags = options.align_corners, options.half_pixel_centers
    picked = [nearest(n, out, *flags) for n, out in zip(x.shape[1:3], y.shape[1:3])]
    return [take(x, y, [np.arange(x.shape[0]), *picked, np.arange(x.shape[3])])]


def nearest(size: int, out: int, align: bool, half: bool) -> np.ndarray:
    """Input position of each output position (resize_nearest_neighbor.h, in float32)."""
    scale = f32(size - 1) / f32(out - 1) if align and out > 1 else f32(size) / f32(out)
    position = (np.arange(out, dtype=np.float32) + f32(0.5 if half else 0.0)) * scale
    index = round_half_away(position) if align else np.floor(position)
    return np.clip(index, 0, size - 1).astype(np.int32)


@prepares("RESIZE_BILINEAR")
def _prepare_bilinear(inputs: Inputs, outputs: Outputs, options: ResizeOptions) -> list[Call]:
    x, (y,) = inputs[0], outputs
    flags = options.align_corners, options.half_pixel_centers
    kernel, positions = (resize_bilinear, fixed) if x.is_int8 else (resize_bilinear_float, floating)
    rows, columns = (positions(n, out, *flags) for n, out in zip(x.shape[1:3], y.shape[1:3]))
    return [call(kernel, x, y, (x.shape, y.shape), rows, columns)]


def fixed(size: int, out: int, align: bool, half: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lower index, upper index, weight of the upper in 1/1024), int32 [out]; resize_bilinear.h for int8.

    The step is rounded, so that positions may run past the last row, where TFLite reads beyond its input. They end at
    the last row here; in front of the first and behind the last the result is that row either way.
    """
    position = np.clip(_positions(size, out, align, half), 0, ONE * (size - 1))
    lower, upper = position // ONE, (position + ONE - 1) // ONE
    return lower.astype(np.int32), upper.astype(np.int32), (position - ONE * lower).astype(np.int32)


def reads_past(size: int, out: int, align: bool, half: bool) -> bool:
    """Whether TFLite's kernels read beyond their input."""
    return bool(_positions(size, out, align, half).max() >= ONE * size)


def _positions(size: int, out: int, align: bool, half: bool) -> np.ndarray:
    """In 1/1024 of a row, in steps that are rounded."""
    spans, steps = (size - 1, out - 1) if align and out > 1 else (size, out)
    scale = (ONE * spans + steps // 2) // steps
    return np.arange(out, dtype=np.int64) * scale + (scale // 2 - ONE // 2 if half else 0)


def floating(size: int, out: int, align: bool, half: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with float32 weights."""
    scale = f32(size - 1) / f32(out - 1) if align and out > 1 else f32(size) / f32(out)
    position = np.arange(out, dtype=np.float32)
    position = (position + f32(0.5)) * scale - f32(0.5) if half else position * scale
    lower = np.clip(np.floor(position), 0, size - 1).astype(np.int32)
    upper = np.clip(np.ceil(position), 0, size - 1).astype(np.int32)
    return lower, upper, (position - lower).astype(np.float32)
