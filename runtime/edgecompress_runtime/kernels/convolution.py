"""CONV_2D (grouped, dilated; 1-D is height 1) and DEPTHWISE_CONV_2D.

Shapes: x [n, h, w, c]; w [o, kh, kw, c / groups], depthwise [1, kh, kw, o]; y [n, h, w, o]; bias [o].
Pairs are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgecompress_runtime.kernels.accumulator import begun, extended, extended_by, stored
from edgecompress_runtime.kernels.arithmetic import (
    Array,
    Values,
    activation_range,
    as_float,
    float_activation_range,
    i32,
    quantize_multipliers,
)
from edgecompress_runtime.kernels.int16_arithmetic import wide_multipliers
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares, prepares_int16
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import Activated, ConvolutionOptions, DepthwiseOptions
from edgecompress_runtime.plan import Tensor


def conv_2d(x: Array, w: Array, channels: Values, y: Array, shapes: Values, window: Values, levels: Values) -> None:
    """channels, levels: see accumulator.py. shapes: of x, w and y. window: strides, dilations, padding in front."""
    (batches, height, width, depth), (outputs, kernel_h, kernel_w, inner), (_, out_h, out_w, _) = shapes
    strides, dilations, pads = window
    per_group = i32(i32(outputs * inner) // depth)
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * outputs)
                for o in range(outputs):
                    first = i32(i32(o // per_group) * inner)
                    acc = begun(channels, o, levels)
                    for ky in range(kernel_h):
                        in_y = i32(top + ky * dilations[0])
                        if in_y < 0 or in_y >= height:
                            continue
                        for kx in range(kernel_w):
                            in_x = i32(left + kx * dilations[1])
                            if in_x < 0 or in_x >= width:
                                continue
                            source = i32(((n * height + in_y) * width + in_x) * depth + first)
                            weights = i32(((o * kernel_h + ky) * kernel_w + kx) * inner)
                            for c in range(inner):
                                acc = extended(acc, x, i32(source + c), w, i32(weights + c), levels)
                    y[i32(pixel + o)] = stored(acc, channels, o, levels)


def depthwise_conv_2d(
    x: Array, w: Array, channels: Values, y: Array, shapes: Values, window: Values, levels: Values
) -> None:
    """Like `conv_2d`, for weights [1, kernel_h, kernel_w, outputs]."""
    (batches, height, width, depth), (_, kernel_h, kernel_w, outputs), (_, out_h, out_w, _) = shapes
    strides, dilations, pads = window
    times = i32(outputs // depth)
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * outputs)
                for o in range(outputs):
                    c = i32(o // times)
                    acc = begun(channels, o, levels)
                    for ky in range(kernel_h):
                        in_y = i32(top + ky * dilations[0])
                        if in_y < 0 or in_y >= height:
                            continue
                        for kx in range(kernel_w):
                            in_x = i32(left + kx * dilations[1])
                            if in_x < 0 or in_x >= width:
                                continue
                            source = i32(((n * height + in_y) * width + in_x) * depth + c)
                            weight = i32((ky * kernel_w + kx) * outputs + o)
                            acc = extended_by(acc, x[source], w, weight, levels)
                    y[i32(pixel + o)] = stored(acc, channels, o, levels)


@prepares("CONV_2D")
@prepares_int16("CONV_2D")
def _prepare_conv(inputs: Inputs, outputs: Outputs, options: ConvolutionOptions) -> list[Call]:
    return _prepare(conv_2d, inputs, outputs, options)


@prepares("DEPTHWISE_CONV_2D")
@prepares_int16("DEPTHWISE_CONV_2D")
def _prepare_depthwise(inputs: Inputs, outputs: Outputs, options: DepthwiseOptions) -> list[Call]:
    return _prepare(depthwise_conv_2d, inputs, outputs, options)


def _prepare(
    kernel: Callable[..., None], inputs: Inputs, outputs: Outputs, options: ConvolutionOptions | DepthwiseOptions
) -> list[Call]:
    x, w, (y,) = inputs[0], inputs[1], outputs
    pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], options.strides, options.dilations)
    geometry = (x.shape, w.shape, y.shape), (options.strides, options.dilations, pads)
    return [layer_call(kernel, (x, w, bias_of(inputs, y), y), geometry, options)]


def layer_call(
    kernel: Callable[..., None],
    operands: tuple[Tensor, Tensor, Tensor | np.ndarray, Tensor],
    geometry: tuple[tuple[tuple[int, ...], ...], ...],
    options: Activated,
) -> Call:
    """A call of a kernel that sums as in accumulator.py; operands: x, w, bias, y."""
    x, w, bias, y = operands
    if x.is_int16:
        channels = bias, *wide_channel_multipliers(x, w, y)
        return call(kernel, x, w, channels, y, *geometry, activation_range(options, y))
    if not x.is_int8:
        return call(kernel, as_float(x), as_float(w), (bias,), y, *geometry, float_activation_range(options))
    levels = x.zero, y.zero, *activation_range(options, y)
    return call(kernel, x, w, (bias, *channel_multipliers(x, w, y)), y, *geometry, levels)


def bias_of(inputs: Sequence[Tensor | None], y: Tensor) -> Tensor | np.ndarray:
    """The bias, expanded to float32 where it is stored otherwise; a zero for each channel of y when there is none."""
    x, bias = inputs[0], inputs[2] if len(inputs) > 2 else None
    assert x is not None
    if bias is None:
        return np.zeros(y.shape[-1], np.int64 if x.is_int16 else np.int32 if x.is_int8 else np.float32)
    return bias if x.is_int8 or x.is_int16 else as_float(bias)


def channel_multipliers(x: Tensor, w: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """int32 multipliers and shifts [output channels] of s_x * s_w[o] / s_y, in float64 as TFLite has it."""
    return quantize_multipliers(np.broadcast_to(channel_scales(x, w, y), y.shape[-1]))


def wide_channel_multipliers(x: Tensor, w: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """int32 multipliers and right shifts [output channels] of int16 activations, for `requantize_wide`."""
    return wide_multipliers(np.broadcast_to(channel_scales(x, w, y), y.shape[-1]))


def channel_scales(x: Tensor, w: Tensor, y: Tensor) -> np.ndarray:
    """float64 [output channels or 1]: s_x * s_w / s_y."""
    return x.scale[0].astype(np.float64) * w.scale.astype(np.float64) / y.scale[0].astype(np.float64)
