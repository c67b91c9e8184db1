"""Windows that convolutions and pools move over an image, and the padding that TFLite computes for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.graph.nodes import integers
from edgecompress.lowering.context import Context

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
Pads = list[tuple[int, int]]  # (before, after) of each dimension


class Window(NamedTuple):
    """What moves over an image: each of two numbers, for height and width."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: Pads


def window(node: ir.Node, spatial: int) -> Window:
    """The window of a convolution or a pool in `spatial` dimensions; that of a signal, in one, has height 1."""
    kernel = integers(node, "kernel_shape", [])
    strides, dilations = integers(node, "strides", [1] * spatial), integers(node, "dilations", [1] * spatial)
    flat = integers(node, "pads", [0] * 2 * spatial)
    pads = list(zip(flat[:spatial], flat[spatial:]))
    if spatial == 1:
        return Window([1, *kernel], [1, *strides], [1, *dilations], [(0, 0), *pads])
    return Window(kernel, strides, dilations, pads)


def same_pads(size: int, out: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding that TFLite computes for SAME: total = max((out - 1) * stride + extent - size, 0), less in front."""
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def fit_padding(ctx: Context, source: int, out: Sequence[int], window: Window, fill: float = 0.0) -> tuple[int, int]:
    """(source, padding scheme): SAME or VALID where they say what the pads say, else an explicit pad and VALID.

    out: height and width of the output. fill: the real number that an explicit pad is of.
    """
    kernel, strides, dilations, pads = window
    size = ctx.tensor(source).shape[1:3]
    read = [(o - 1) * s + (k - 1) * d + 1 for o, k, s, d in zip(out, kernel, strides, dilations)]
    # rows that the last window does not reach need no padding
    needed = [(before, max(r - n - before, 0)) for r, n, (before, _) in zip(read, size, pads)]
    if needed == [(0, 0), (0, 0)]:
        return source, VALID
    same = [same_pads(*args) for args in zip(size, out, kernel, strides, dilations)]
    reachable = [o == -(-n // s) for o, n, s in zip(out, size, strides)]
    if needed == same and all(reachable):
        return source, SAME
    return ctx.pad(source, [(0, 0), *needed, (0, 0)], fill), VALID
