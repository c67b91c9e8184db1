"""Where a sliding window starts: padding as TFLite computes it from SAME and VALID."""

from __future__ import annotations

from collections.abc import Sequence

SAME = 0  # schema.fbs Padding


def padding(
    scheme: int | tuple[int, int],
    size: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
) -> tuple[int, int]:
    """Rows and columns of padding in front (padding.h ComputePaddingHeightWidth), all of (height, width). scheme: of
    `WindowOptions`."""
    if isinstance(scheme, tuple):
        return scheme
    if scheme != SAME:
        return 0, 0
    spans = zip(size, out, kernel, strides, dilations)
    top, left = (max((o - 1) * s + (k - 1) * d + 1 - n, 0) // 2 for n, o, k, s, d in spans)
    return top, left
