"""The strip: the input rows that an output row needs, turned by 90 degrees.

[columns][kernel_h][channels], so that an output pixel's window is kernel_w columns that follow one another and
neighbouring pixels share them: no im2col. The zero point stands where the image ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline


def strip_of(element: int, copy: Callable[..., Any], blank: Callable[..., Any]) -> Callable[..., None]:
    """A function for Numba, inlined, that fills the strip for one output row.

    element: bytes of a value in the strip. copy(source, target, n): n values of the image into the strip.
    blank(target, n, zero): n zero points.
    """

    @inline
    def filled(x: Pointer, part: Pointer, inside: Word, across: Tuple, channels: Word, zero: Word) -> None:
        """One row of the image, `inside` pixels wide, into its place in every column."""
        left, columns, step = across
        for i in range(left):
            blank(moved(part, i32(i * step)), channels, zero)
        for i in range(inside):
            copy(moved(x, i32(i * channels)), moved(part, i32((i + left) * step)), channels)
        for i in range(i32(left + inside), columns):
            blank(moved(part, i32(i * step)), channels, zero)

    @inline
    def strip_rows(x: Pointer, strip: Pointer, top: Word, rows: Tuple, across: Tuple, zero: Word) -> None:
        """top: the first row of the window, maybe negative. rows: the image's (height, width, channels), the window's
        number of rows, dilation. across: columns of padding in front, columns, bytes of one."""
        size, kernel_h, dilation = rows
        height, width, channels = size
        for ky in range(kernel_h):
            in_y = i32(top + ky * dilation)
            inside = min(width, i32(across[1] - across[0])) if 0 <= in_y < height else i32(0)
            source, part = moved(x, i32(in_y * width * channels)), moved(strip, i32(ky * channels * element))
            filled(source, part, inside, across, channels, zero)

    return strip_rows
