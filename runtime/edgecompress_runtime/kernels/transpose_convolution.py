"""TRANSPOSE_CONV: x [n, h, w, c], w [o, kh, kw, c], y [n, h, w, o].

Each output gathers the inputs that reach it, so that no accumulator outlives its pixel (TFLite scatters into
a scratch buffer of the output's size; integer sums are the same in any order).
"""

from __future__ import annotations

from edgecompress_runtime.kernels.accumulator import begun, extended, stored
from edgecompress_runtime.kernels.arithmetic import Array, Values, i32
from edgecompress_runtime.kernels.convolution import bias_of, layer_call
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, prepares, prepares_int16
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import TransposeConvolutionOptions


def transpose_conv(
    x: Array, w: Array, channels: Values, y: Array, shapes: Values, window: Values, levels: Values
) -> None:
    """channels, levels: see accumulator.py. shapes: of x, w and y. window: strides, padding in front."""
    (batches, height, width, depth), (outputs, kernel_h, kernel_w, _), (_, out_h, out_w, _) = shapes
    strides, pads = window
    for n in range(batches):
        for out_y in range(out_h):
            for out_x in range(out_w):
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * outputs)
                for o in range(outputs):
                    acc = begun(channels, o, levels)
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
                            source = i32(((n * height + in_y) * width + in_x) * depth)
                            weights = i32(((o * kernel_h + ky) * kernel_w + kx) * depth)
                            for c in range(depth):
                                acc = extended(acc, x, i32(source + c), w, i32(weights + c), levels)
                    y[i32(pixel + o)] = stored(acc, channels, o, levels)


@prepares("TRANSPOSE_CONV")
@prepares_int16("TRANSPOSE_CONV")
def _prepare_transpose_conv(inputs: Inputs, outputs: Outputs, options: TransposeConvolutionOptions) -> list[Call]:
    """Inputs: output shape, weights, x, bias."""
    w, x, (y,) = inputs[1], inputs[2], outputs
    bias = bias_of([x, w, *inputs[3:]], y)
    # TFLite pads the convolution of which this is the gradient: from y's size to x's (transpose_conv.cc)
    size, kernel = y.shape[1:3], w.shape[1:3]
    reach = [-(-n // s) for n, s in zip(size, options.strides)]
    pads = padding(options.padding, size, reach, kernel, options.strides)
    geometry = (x.shape, w.shape, y.shape), (options.strides, pads)
    return [layer_call(transpose_conv, (x, w, bias, y), geometry, options)]
