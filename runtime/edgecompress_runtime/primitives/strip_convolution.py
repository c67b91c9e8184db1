"""CONV_2D on top of a family's primitives: every block computes two pixels by two channels.

x's zero point was taken out of the sums at build time (convolution.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.primitives.strip import strip_of
from edgecompress_runtime.primitives.words import moved


@dataclass(frozen=True, eq=False)
class Blocks:
    """A family's part in a convolution; functions for Numba, inlined.

    element: bytes of a value in the strip. aligned: a column's elements are a multiple of it.
    copy(source, target, n): n values of the image into the strip. blank(target, n, zero): n zero points.
    bank(w, bank, first, pairs, depth): the address of the weights of `pairs` pairs from `first` on; called in order.
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
    element, aligned, bank_of, block = blocks.element, blocks.aligned, blocks.bank, blocks.block
    strip_rows = strip_of(element, blocks.copy, blocks.blank)

    def kernel(x, w, records, y, strip, bank, size, window, out, stride, dilation, pads, x_zero, low, high, bank_pairs):
        _, _, channels = size
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
                top = i32(out_y * stride[0] - pads[0])
                strip_rows(x, strip, top, size, kernel_h, dilation, pads[1], columns, step, x_zero)
                row = moved(y, i32(out_y * out_w * out_channels))
                for number in range(i32(i32(out_w + 1) // i32(2))):
                    out_x = min(i32(number * 2), last_x)  # of an odd row the last two: one pixel is done twice
                    pixels = moved(strip, i32(out_x * stride[1] * step))
                    target = moved(row, i32(out_x * out_channels))
                    for pair in range(first, after):
                        block(pixels, x_step, moved(weights, i32(i32(pair - first) * depth * 2 * element)), depth,
                              records, pair, moved(target, min(i32(pair * 2), last_o)), y_step, low, high)  # fmt: skip

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel
