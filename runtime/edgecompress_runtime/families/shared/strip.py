"""The strip: the input rows that an output row needs, turned by 90 degrees.

[columns][kernel_h][channels], so that an output pixel's window is kernel_w columns that follow one another and
neighbouring pixels share them: no im2col. The zero point stands where the image ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import i32


def strip_of(element: int, copy: Callable[..., Any], blank: Callable[..., Any]) -> Callable[..., None]:
    """A function for Numba, inlined, that fills the strip for one output row.

    element: bytes of a value in the strip. copy(source, target, n): n values of the image into the strip.
    blank(target, n, zero): n zero points.
    """

    @njit(inline="always")
    def filled(x, part, inside, left, columns, step, channels, zero):
        """One row of the image, `inside` pixels wide, into its place in every column."""
        for i in range(left):
            blank(moved(part, i32(i * step)), channels, zero)
        for i in range(inside):
            copy(moved(x, i32(i * channels)), moved(part, i32((i + left) * step)), channels)
        for i in range(i32(left + inside), columns):
            blank(moved(part, i32(i * step)), channels, zero)

    @njit(inline="always")
    def strip_rows(x, strip, top, size, kernel_h, dilation, left, columns, step, zero):
        """top: the first row of the window, maybe negative. step: bytes of a column."""
        height, width, channels = size
        for ky in range(kernel_h):
            in_y = i32(top + ky * dilation)
            inside = min(width, i32(columns - left)) if 0 <= in_y < height else i32(0)
            filled(
                moved(x, i32(in_y * width * channels)),
                moved(strip, i32(ky * channels * element)),
                inside,
                left,
                columns,
                step,
                channels,
                zero,
            )

    return strip_rows
