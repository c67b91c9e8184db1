"""TRANSPOSE_CONV: x [n, h, w, c], w [o, kh, kw, c], y [n, h, w, o].

Each output gathers the inputs that reach it, so that no accumulator outlives its pixel (TFLite scatters into
a scratch buffer of the output's size; integer sums are the same in any order).
"""

from __future__ import annotations

from edgecompress_runtime.kernels.arithmetic import (
    activation_range,
    as_float,
    clamp,
    f32,
    float_activation_range,
    i32,
    requantize,
)
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import TransposeConvolutionOptions


def transpose_conv(
    x, w, bias, multiplier, shift, y, x_shape, w_shape, y_shape, strides, pads, x_zero, y_zero, low, high
):
    batches, height, width, channels = x_shape
    out_channels, kernel_h, kernel_w, _ = w_shape
    _, out_h, out_w, _ = y_shape
    for n in range(batches):
        for out_y in range(out_h):
            for out_x in range(out_w):
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * out_channels)
                for o in range(out_channels):
                    acc = i32(bias[o])
                    for ky in range(kernel_h):
                        down = i32(out_y + pads[0] - ky)
                        in_y = i32(down // strides[0])
                        if down < 0 or in_y >= height or i32(in_y * strides[0]) != down:
                            continue
                        for kx in range(kernel_w):
                            right = i32(out_x + pads[1] - kx)
                            in_x = i32(right // strides[1])
                            if right < 0 or in_x >= width or i32(in_x * strides[1]) != right:
                                continue
                            source = i32(((n * height + in_y) * width + in_x) * channels)
                            weights = i32(((o * kernel_h + ky) * kernel_w + kx) * channels)
                            for c in range(channels):
                                value = i32(x[i32(source + c)] - x_zero)
                                acc = i32(acc + i32(w[i32(weights + c)]) * value)
                    scaled = i32(requantize(acc, multiplier[o], shift[o]) + y_zero)
                    y[i32(pixel + o)] = clamp(scaled, low, high)


def transpose_conv_float(x, w, bias, y, x_shape, w_shape, y_shape, strides, pads, low, high):
    batches, height, width, channels = x_shape
    out_channels, kernel_h, kernel_w, _ = w_shape
    _, out_h, out_w, _ = y_shape
    for n in range(batches):
        for out_y in range(out_h):
            for out_x in range(out_w):
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * out_channels)
                for o in range(out_channels):
                    acc = f32(0)
                    for ky in range(kernel_h):
                        down = i32(out_y + pads[0] - ky)
                        in_y = i32(down // strides[0])
                        if down < 0 or in_y >= height or i32(in_y * strides[0]) != down:
                            continue
                        for kx in range(kernel_w):
                            right = i32(out_x + pads[1] - kx)
                            in_x = i32(right // strides[1])
                            if right < 0 or in_x >= width or i32(in_x * strides[1]) != right:
                                continue
                            source = i32(((n * height + in_y) * width + in_x) * channels)
                            weights = i32(((o * kernel_h + ky) * kernel_w + kx) * channels)
                            for c in range(channels):
                                acc += w[i32(weights + c)] * x[i32(source + c)]
                    y[i32(pixel + o)] = clamp(acc + bias[o], low, high)


@prepares("TRANSPOSE_CONV")
def prepare(inputs: Inputs, outputs: Outputs, options: TransposeConvolutionOptions) -> list[Call]:
    """Inputs: output shape, weights, x, bias."""
    w, x, (y,) = inputs[1], inputs[2], outputs
    bias = bias_of([x, w, *inputs[3:]])
    strides = options.strides
    # TFLite pads the convolution of which this is the gradient: from y's size to x's (transpose_conv.cc)
    size, kernel = y.shape[1:3], w.shape[1:3]
    reach = [-(-n // s) for n, s in zip(size, strides)]
    pads = padding(options.padding, size, reach, kernel, strides)
    geometry = x.shape, w.shape, y.shape, strides, pads
    if x.is_int8:
        multiplier, shift = channel_multipliers(x, w, y)
        rest = x.zero, y.zero, *activation_range(options, y)
        return [call(transpose_conv, x, w, bias, multiplier, shift, y, *geometry, *rest)]
    bounds = float_activation_range(options)
    return [call(transpose_conv_float, as_float(x), as_float(w), bias, y, *geometry, *bounds)]
