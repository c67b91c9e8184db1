"""MAX_POOL_2D and AVERAGE_POOL_2D: padding is never counted. Pairs are (height, width)."""

from __future__ import annotations

from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Values,
    activation_range,
    clamp,
    f32,
    float_activation_range,
    i32,
)
from edgecompress_runtime.kernels.registry import Argument, Call, Inputs, Outputs, call, prepares, prepares_int16
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import PoolOptions
from edgecompress_runtime.plan import Tensor


def max_pool_2d(x: Array, y: Array, shapes: Values, window: Values, bounds: Values) -> None:
    """int8, int16 or float32. shapes: of x and y. window: its size, strides, padding in front."""
    (batches, height, width, channels), (_, out_h, out_w, _) = shapes
    kernel, strides, pads = window
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            rows = range(max(top, i32(0)), min(i32(top + kernel[0]), height))
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                columns = range(max(left, i32(0)), min(i32(left + kernel[1]), width))
                for c in range(channels):
                    best = bounds[0]  # the fused activation's lower bound
                    for in_y in rows:
                        for in_x in columns:
                            best = max(best, x[i32(((n * height + in_y) * width + in_x) * channels + c)])
                    y[i32(((n * out_h + out_y) * out_w + out_x) * channels + c)] = min(best, bounds[1])


def average_pool_2d(x: Array, y: Array, shapes: Values, window: Values, bounds: Values) -> None:
    """Rounded to nearest, halves away from zero; the same scale on both sides. Arguments: of `max_pool_2d`."""
    (batches, height, width, channels), (_, out_h, out_w, _) = shapes
    kernel, strides, pads = window
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            rows = range(max(top, i32(0)), min(i32(top + kernel[0]), height))
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                columns = range(max(left, i32(0)), min(i32(left + kernel[1]), width))
                count = i32(len(rows) * len(columns))
                half = i32(count // i32(2))
                for c in range(channels):
                    acc = i32(0)
                    for in_y in rows:
                        for in_x in columns:
                            acc = i32(acc + x[i32(((n * height + in_y) * width + in_x) * channels + c)])
                    mean = i32(i32(acc + half) // count) if acc > 0 else i32(-(i32(half - acc) // count))
                    y[i32(((n * out_h + out_y) * out_w + out_x) * channels + c)] = clamp(mean, bounds[0], bounds[1])


def average_pool_2d_float(x: Array, y: Array, shapes: Values, window: Values, bounds: Values) -> None:
    """Arguments: of `max_pool_2d`."""
    (batches, height, width, channels), (_, out_h, out_w, _) = shapes
    kernel, strides, pads = window
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            rows = range(max(top, i32(0)), min(i32(top + kernel[0]), height))
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                columns = range(max(left, i32(0)), min(i32(left + kernel[1]), width))
                count = f32(i32(len(rows) * len(columns)))
                for c in range(channels):
                    acc = f32(0)
                    for in_y in rows:
                        for in_x in columns:
                            acc += x[i32(((n * height + in_y) * width + in_x) * channels + c)]
                    mean = clamp(acc / count, bounds[0], bounds[1])
                    y[i32(((n * out_h + out_y) * out_w + out_x) * channels + c)] = mean


@prepares("MAX_POOL_2D")
@prepares_int16("MAX_POOL_2D")
def _prepare_max_pool(inputs: Inputs, outputs: Outputs, options: PoolOptions) -> list[Call]:
    return [call(max_pool_2d, inputs[0], outputs[0], *_geometry(inputs[0], outputs[0], options))]


@prepares("AVERAGE_POOL_2D")
@prepares_int16("AVERAGE_POOL_2D")
def _prepare_average_pool(inputs: Inputs, outputs: Outputs, options: PoolOptions) -> list[Call]:
    kernel = average_pool_2d if inputs[0].is_int8 or inputs[0].is_int16 else average_pool_2d_float
    return [call(kernel, inputs[0], outputs[0], *_geometry(inputs[0], outputs[0], options))]


def _geometry(x: Tensor, y: Tensor, options: PoolOptions) -> tuple[Argument, ...]:
    pads = padding(options.padding, x.shape[1:3], y.shape[1:3], options.window, options.strides)
    bounds = activation_range(options, y) if x.is_int8 or x.is_int16 else float_activation_range(options)
    return (x.shape, y.shape), (options.window, options.strides, pads), bounds
