"""CONV_2D on top of a family's blocks: each computes some pixels by some channels, two by two or more.

x's zero point was taken out of the sums at build time (arranged_convolution.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecompress_runtime.families.shared.strip import strip_of
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Tuple, Word


@dataclass(frozen=True, eq=False)
class Blocks:
    """A family's part in a convolution; functions for Numba, inlined.

    element: bytes of a value in the strip. aligned: a column's elements are a multiple of it.
    copy(source, target, n): n values of the image into the strip. blank(target, n, zero): n zero points.
    bank(w, bank, first, groups, depth): the address of the weights of `groups` groups of channels from `first` on;
    called in order. pixels, channels: of a block, of which the channels are a group.
    block(window, weights, depth, record, target, bounds): requantized and stored. window: where the first pixel's
    inputs start, and bytes from pixel to pixel; record: the records, and the number of this group's; target: where the
    first pixel's outputs go, and bytes from pixel to pixel.
    """

    element: int
    aligned: int
    copy: Callable[..., Any]
    blank: Callable[..., Any]
    bank: Callable[..., Any]
    block: Callable[..., Any]
    pixels: int = 2
    channels: int = 2


def strip_convolution(name: str, module: str, blocks: Blocks) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`."""
    element, aligned, bank_of, block = blocks.element, blocks.aligned, blocks.bank, blocks.block
    strip_rows, pixels, block_channels = strip_of(element, blocks.copy, blocks.blank), blocks.pixels, blocks.channels

    def kernel(tensors: Tuple, scratch: Tuple, geometry: Tuple, x_zero: Word, bounds: Tuple, bank_groups: Word) -> None:
        """tensors: x, weights, records, y. scratch: strip and bank. bank_groups: groups of channels in the bank."""
        x, w, records, y = tensors
        strip, bank = scratch
        size, window, out, stride, dilation, pads = geometry
        _, _, channels = size
        kernel_h, kernel_w = window
        out_h, out_w, out_channels = out
        column = i32(i32(kernel_h * channels + aligned - 1) // i32(aligned) * aligned)
        step = i32(column * element)
        depth = i32(column * kernel_w)
        columns = i32((out_w - 1) * stride[1] + kernel_w)
        # where a row is shorter than a block, its pixels are computed one by one, each several times
        each = pixels if out_w >= pixels else i32(1)
        x_step, y_step = (i32(stride[1] * step), out_channels) if out_w >= pixels else (i32(0), i32(0))
        last_x, last_o = i32(out_w - each), i32(out_channels - block_channels)
        groups = i32(i32(out_channels + block_channels - 1) // i32(block_channels))
        for first in range(i32(0), groups, bank_groups):
            after = min(i32(first + bank_groups), groups)
            weights = bank_of(w, bank, first, i32(after - first), depth)
            for out_y in range(out_h):
                top = i32(out_y * stride[0] - pads[0])
                strip_rows(x, strip, top, (size, kernel_h, dilation), (pads[1], columns, step), x_zero)
                row = moved(y, i32(out_y * out_w * out_channels))
                for number in range(i32(i32(out_w + each - 1) // i32(each))):
                    out_x = min(i32(number * each), last_x)  # the row's last ones again, if need be
                    windows = moved(strip, i32(out_x * stride[1] * step))
                    target = moved(row, i32(out_x * out_channels))
                    for group in range(first, after):
                        part = moved(weights, i32(i32(group - first) * depth * block_channels * element))
                        at = moved(target, min(i32(group * block_channels), last_o))
                        block((windows, x_step), part, depth, (records, group), (at, y_step), bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel
