"""CONV_2D (grouped, dilated; 1-D is height 1) and DEPTHWISE_CONV_2D.

Shapes: x [n, h, w, c]; w [o, kh, kw, c / groups], depthwise [1, kh, kw, o]; y [n, h, w, o]; bias [o].
Pairs are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgecompress_runtime.kernels.arithmetic import (
    activation_range,
    as_float,
    clamp,
    f32,
    float_activation_range,
    i32,
    quantize_multipliers,
    requantize,
)
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import ConvolutionOptions, DepthwiseOptions
from edgecompress_runtime.plan import Tensor


def conv_2d(
    x, w, bias, multiplier, shift, y, x_shape, w_shape, y_shape, strides, dilations, pads, x_zero, y_zero, low, high
):
    batches, height, width, channels = x_shape
    out_channels, kernel_h, kernel_w, depth = w_shape
    _, out_h, out_w, _ = y_shape
    per_group = i32(i32(out_channels * depth) // channels)
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * out_channels)
                for o in range(out_channels):
                    first = i32(i32(o // per_group) * depth)
                    acc = i32(bias[o])
                    for ky in range(kernel_h):
                        in_y = i32(top + ky * dilations[0])
                        if in_y < 0 or in_y >= height:
                            continue
                        for kx in range(kernel_w):
                            in_x = i32(left + kx * dilations[1])
                            if in_x < 0 or in_x >= width:
                                continue
                            source = i32(((n * height + in_y) * width + in_x) * channels + first)
                            weights = i32(((o * kernel_h + ky) * kernel_w + kx) * depth)
                            for c in range(depth):
                                value = i32(x[i32(source + c)] - x_zero)
                                acc = i32(acc + i32(w[i32(weights + c)]) * value)
                    scaled = i32(requantize(acc, multiplier[o], shift[o]) + y_zero)
                    y[i32(pixel + o)] = clamp(scaled, low, high)


def conv_2d_float(x, w, bias, y, x_shape, w_shape, y_shape, strides, dilations, pads, low, high):
    batches, height, width, channels = x_shape
    out_channels, kernel_h, kernel_w, depth = w_shape
    _, out_h, out_w, _ = y_shape
    per_group = i32(i32(out_channels * depth) // channels)
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * out_channels)
                for o in range(out_channels):
                    first = i32(i32(o // per_group) * depth)
                    acc = f32(0)
                    for ky in range(kernel_h):
                        in_y = i32(top + ky * dilations[0])
                        if in_y < 0 or in_y >= height:
                            continue
                        for kx in range(kernel_w):
                            in_x = i32(left + kx * dilations[1])
                            if in_x < 0 or in_x >= width:
                                continue
                            source = i32(((n * height + in_y) * width + in_x) * channels + first)
                            weights = i32(((o * kernel_h + ky) * kernel_w + kx) * depth)
                            for c in range(depth):
                                acc += w[i32(weights + c)] * x[i32(source + c)]
                    y[i32(pixel + o)] = clamp(acc + bias[o], low, high)


def depthwise_conv_2d(
    x, w, bias, multiplier, shift, y, x_shape, w_shape, y_shape, strides, dilations, pads, x_zero, y_zero, low, high
):
    batches, height, width, channels = x_shape
    _, kernel_h, kernel_w, out_channels = w_shape
    _, out_h, out_w, _ = y_shape
    times = i32(out_channels // channels)
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * out_channels)
                for o in range(out_channels):
                    c = i32(o // times)
                    acc = i32(bias[o])
                    for ky in range(kernel_h):
                        in_y = i32(top + ky * dilations[0])
                        if in_y < 0 or in_y >= height:
                            continue
                        for kx in range(kernel_w):
                            in_x = i32(left + kx * dilations[1])
                            if in_x < 0 or in_x >= width:
                                continue
                            value = i32(x[i32(((n * height + in_y) * width + in_x) * channels + c)] - x_zero)
                            acc = i32(acc + i32(w[i32((ky * kernel_w + kx) * out_channels + o)]) * value)
                    scaled = i32(requantize(acc, multiplier[o], shift[o]) + y_zero)
                    y[i32(pixel + o)] = clamp(scaled, low, high)


def depthwise_conv_2d_float(x, w, bias, y, x_shape, w_shape, y_shape, strides, dilations, pads, low, high):
    batches, height, width, channels = x_shape
    _, kernel_h, kernel_w, out_channels = w_shape
    _, out_h, out_w, _ = y_shape
    times = i32(out_channels // channels)
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * out_channels)
                for o in range(out_channels):
                    c = i32(o // times)
                    acc = f32(0)
                    for ky in range(kernel_h):
                        in_y = i32(top + ky * dilations[0])
                        if in_y < 0 or in_y >= height:
                            continue
                        for kx in range(kernel_w):
                            in_x = i32(left + kx * dilations[1])
                            if in_x < 0 or in_x >= width:
                                continue
                            value = x[i32(((n * height + in_y) * width + in_x) * channels + c)]
                            acc += w[i32((ky * kernel_w + kx) * out_channels + o)] * value
                    y[i32(pixel + o)] = clamp(acc + bias[o], low, high)


KERNEL: dict[tuple[str, bool], Callable[..., None]] = {
    ("CONV_2D", True): conv_2d,
    ("CONV_2D", False): conv_2d_float,
    ("DEPTHWISE_CONV_2D", True): depthwise_conv_2d,
    ("DEPTHWISE_CONV_2D", False): depthwise_conv_2d_float,
}


@prepares("CONV_2D")
def prepare_conv(inputs: Inputs, outputs: Outputs, options: ConvolutionOptions) -> list[Call]:
    return _prepare("CONV_2D", inputs, outputs, options)


@prepares("DEPTHWISE_CONV_2D")
def prepare_depthwise(inputs: Inputs, outputs: Outputs, options: DepthwiseOptions) -> list[Call]:
    return _prepare("DEPTHWISE_CONV_2D", inputs, outputs, options)


def _prepare(kind: str, inputs: Inputs, outputs: Outputs, options: ConvolutionOptions | DepthwiseOptions) -> list[Call]:
    x, w, bias, (y,) = inputs[0], inputs[1], bias_of(inputs), outputs
    strides = options.strides
    dilations = options.dilations
    pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], strides, dilations)
    geometry = x.shape, w.shape, y.shape, strides, dilations, pads
    kernel = KERNEL[kind, x.is_int8]
    if x.is_int8:
        multiplier, shift = channel_multipliers(x, w, y)
        rest = x.zero, y.zero, *activation_range(options, y)
        return [call(kernel, x, w, bias, multiplier, shift, y, *geometry, *rest)]
    return [call(kernel, as_float(x), as_float(w), bias, y, *geometry, *float_activation_range(options))]


def bias_of(inputs: Sequence[Tensor | None], position: int = 2) -> Tensor | np.ndarray:
    """The bias, expanded to float32 where it is stored otherwise; zeros when there is none."""
    x, w = inputs[0], inputs[1]
    bias = inputs[position] if len(inputs) > position else None
    assert x is not None and w is not None
    if bias is None:
        return np.zeros(w.shape[0], np.int32 if x.is_int8 else np.float32)
    return bias if x.is_int8 else as_float(bias)


def channel_multipliers(x: Tensor, w: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """int32 multipliers and shifts [output channels] of s_x * s_w[o] / s_y, in float64 as TFLite has it."""
    return quantize_multipliers(np.broadcast_to(channel_scales(x, w, y), y.shape[-1]))


def channel_scales(x: Tensor, w: Tensor, y: Tensor) -> np.ndarray:
    """float64 [output channels or 1]: s_x * s_w / s_y."""
    return x.scale[0].astype(np.float64) * w.scale.astype(np.float64) / y.scale[0].astype(np.float64)
