"""CONV_2D on top of a family's primitives: no im2col, every block computes two pixels by two channels.

The input rows that an output row needs are copied into a strip, [columns][kernel_h * channels], turned by 90
degrees so that an output pixel's window is kernel_w columns that follow one another: neighbouring pixels share
them. The zero point stands where the image ends; it was taken out of the sums at build time (convolution.py).
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import njit

from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.primitives.words import moved


@dataclass(frozen=True, eq=False)
class Blocks:
    """A family's part in a convolution; functions for Numba, inlined.

    element: bytes of a value in the strip. aligned: a column's elements are a multiple of it.
    copy(source, target, n): n values of the image into the strip. blank(target, n, zero): n zero points.
    bank(w, bank, first, pairs, depth): the address of the weights of `pairs` pairs from `first` on.
    block(window, x_step, weights, depth, records, record, target, y_step, low, high): two pixels by two channels,
    requantised and stored.
    """

    element: int
    aligned: int
    copy: Callable[..., Any]
    blank: Callable[..., Any]
    bank: Callable[..., Any]
    block: Callable[..., Any]


def strip_convolution(name: str, module: str, blocks: Blocks) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`."""
    element, aligned = blocks.element, blocks.aligned
    copy, blank, bank_of, block = blocks.copy, blocks.blank, blocks.bank, blocks.block

    @njit(inline="always")
    def filled(x, part, inside, left, columns, step, channels, zero):
        """One row of the image, `inside` pixels wide, into its place in every column."""
        for i in range(left):
            blank(moved(part, i32(i * step)), channels, zero)
        for i in range(inside):
            copy(moved(x, i32(i * channels)), moved(part, i32((i + left) * step)), channels)
        for i in range(i32(left + inside), columns):
            blank(moved(part, i32(i * step)), channels, zero)

    def kernel(
        x, w, records, y, strip, bank, size, window, out, stride, dilation, pads, x_zero, low, high, bank_pairs
    ):
        height, width, channels = size
        kernel_h, kernel_w = window
        out_h, out_w, out_channels = out
        column = i32(i32(kernel_h * channels + aligned - 1) // i32(aligned) * aligned)
        step = i32(column * element)
        depth = i32(column * kernel_w)
        columns = i32((out_w - 1) * stride[1] + kernel_w)
        last_x, last_o = max(i32(out_w - 2), i32(0)), i32(out_channels - 2)
        # an output one pixel wide computes it twice
        x_step, y_step = (i32(stride[1] * step), out_channels) if out_w > 1 else (i32(0), i32(0))
        pairs = i32(i32(out_channels + 1) // i32(2))
        for first in range(i32(0), pairs, bank_pairs):
            after = min(i32(first + bank_pairs), pairs)
            weights = bank_of(w, bank, first, i32(after - first), depth)
            for out_y in range(out_h):
                for ky in range(kernel_h):
                    in_y = i32(out_y * stride[0] - pads[0] + ky * dilation)
                    inside = min(width, i32(columns - pads[1])) if 0 <= in_y < height else i32(0)
                    filled(moved(x, i32(in_y * width * channels)), moved(strip, i32(ky * channels * element)), inside,
                           pads[1], columns, step, channels, x_zero)  # fmt: skip
                row = moved(y, i32(out_y * out_w * out_channels))
                for number in range(i32(i32(out_w + 1) // i32(2))):
                    out_x = min(i32(number * 2), last_x)  # of an odd row the last two: one pixel is done twice
                    pixels = moved(strip, i32(out_x * stride[1] * step))
                    target = moved(row, i32(out_x * out_channels))
                    for pair in range(first, after):
                        block(pixels, x_step, moved(weights, i32(i32(pair - first) * depth * 2 * element_of_bank)), depth,
                              records, pair, moved(target, min(i32(pair * 2), last_o)), y_step, low, high)  # fmt: skip

    element_of_bank = blocks.element
    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel
