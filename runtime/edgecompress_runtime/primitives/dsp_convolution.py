"""CONV_2D with SMLAD: the rows that an output row needs are widened into a strip, weights into a bank.

Strip: int16 [columns][kernel_h * channels, padded to fours]; the window of an output pixel is kernel_w columns
that follow one another. Bank: int16 of as many output channels as fit, in pairs; used for every pixel.
"""
from __future__ import annotations

from numba import njit

from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.primitives.dsp import dot_2x2, widen
from edgecompress_runtime.primitives.scaling import scaled_twice
from edgecompress_runtime.primitives.words import moved, store_half, store_word


def strip_convolution(
    x, w, records, y, strip, bank, size, kernel, out, stride, dilation, pads, x_zero, low, high, bank_channels
):
    height, width, channels = size
    kernel_h, kernel_w = kernel
    out_h, out_w, out_channels = out
    column = i32(i32(kernel_h * channels + 3) // i32(4) * 4)  # elements
    depth = i32(column * kernel_w)
    columns = i32((out_w - 1) * stride[1] + kernel_w)
    last_x, last_o = max(i32(out_w - 2), i32(0)), i32(out_channels - 2)
    x_step, y_step = i32(stride[1] * column * 2), out_channels
    if out_w == 1:
        x_step, y_step = i32(0), i32(0)
    pairs = i32(i32(out_channels + 1) // i32(2))
    bank_pairs = i32(bank_channels // i32(2))
    for first in range(i32(0), pairs, bank_pairs):
        after = min(i32(first + bank_pairs), pairs)
        widen(moved(w, i32(first * depth * 2)), bank, i32(i32(after - first) * depth // i32(2)))
        for out_y in range(out_h):
            top = i32(out_y * stride[0] - pads[0])
            for ky in range(kernel_h):
                in_y = i32(top + ky * dilation)
                part = moved(strip, i32(ky * channels * 2))
                if in_y < 0 or in_y >= height:
                    blank(part, i32(0), columns, column, channels, x_zero)
                else:
                    inside = min(width, i32(columns - pads[1]))
                    blank(part, i32(0), pads[1], column, channels, x_zero)
                    blank(part, i32(pads[1] + inside), columns, column, channels, x_zero)
                    source = moved(x, i32(in_y * width * channels))
                    part = moved(part, i32(pads[1] * column * 2))
                    for i in range(inside):
                        copied(moved(source, i32(i * channels)), moved(part, i32(i * column * 2)), channels)
            row = moved(y, i32(out_y * out_w * out_channels))
            for step in range(i32(i32(out_w + 1) // i32(2))):
                out_x = min(i32(step * 2), last_x)  # of an odd row the last two: one pixel is done twice
                window = moved(strip, i32(out_x * stride[1] * column * 2))
                target = moved(row, i32(out_x * out_channels))
                for pair in range(first, after):
                    o = min(i32(pair * 2), last_o)
                    r = i32(pair * 8)
                    weights = moved(bank, i32(i32(pair - first) * depth * 4))
                    a, b, c, d = dot_2x2(window, x_step, weights, i32(depth // i32(4)), records[r], records[i32(r + 4)])
                    m0, c0, s0 = records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]
                    m1, c1, s1 = records[i32(r + 5)], records[i32(r + 6)], records[i32(r + 7)]
                    target[o] = clamp(scaled_twice(a, m0, c0, s0), low, high)
                    target[i32(o + 1)] = clamp(scaled_twice(b, m1, c1, s1), low, high)
                    target[i32(o + y_step)] = clamp(scaled_twice(c, m0, c0, s0), low, high)
                    target[i32(o + y_step + 1)] = clamp(scaled_twice(d, m1, c1, s1), low, high)


@njit(inline="always")
def blank(part, begin, end, column, channels, zero):
    """The input's zero point into columns outside the image."""
    for i in range(begin, end):
        if channels % i32(2) == 0:
            for c in range(i32(0), channels, i32(2)):
                store_word(part, i32(i * column * 2 + c * 2), i32((zero & i32(0xFFFF)) * i32(0x10001)))
        else:
            for c in range(channels):
                store_half(part, i32(i * column * 2 + c * 2), zero)


@njit(inline="always")
def copied(source, target, channels):
    """One pixel, widened; in plain order where its channels are no multiple of four."""
    if channels % i32(4) == 0:
        widen(source, target, i32(channels // i32(4)))
    else:
        for c in range(channels):
            store_half(target, i32(c * 2), i32(source[c]))
