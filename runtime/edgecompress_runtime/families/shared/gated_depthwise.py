"""DEPTHWISE_CONV_2D of which a gate closes channels: the open ones alone are copied to the strip, and computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.arranged_depthwise import DepthwiseArrangement, DepthwiseBlocks
from edgecompress_runtime.families.shared.gate import Gate, open_blocks
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Words, inline
from edgecompress_runtime.options import DepthwiseOptions
from edgecompress_runtime.plan import Tensor


def _chosen_rows(copy: Callable[..., Any], blank: Callable[..., Any]) -> Callable[..., None]:
    @inline
    def chosen_rows(x: Pointer, strip: Pointer, top: Words, rows: Tuple, across: Tuple, chosen: Tuple) -> None:
        """As strip.strip_rows, of some blocks of channels, each in its place. chosen: their first channels, their
        number, their size, and the zero point."""
        size, kernel_h, dilation = rows
        left, columns, step = across
        firsts, count, length, zero = chosen
        height, width, channels = size
        for ky in range(kernel_h):
            in_y = i32(top + ky * dilation)
            inside = min(width, i32(columns - left)) if 0 <= in_y < height else i32(0)
            source, part = moved(x, i32(in_y * width * channels)), moved(strip, i32(ky * channels))
            for i in range(columns):
                target, pixel = moved(part, i32(i * step)), i32(i - left)
                if 0 <= pixel < inside:
                    for k in range(count):
                        copy(moved(source, i32(pixel * channels + firsts[k])), moved(target, firsts[k]), length)
                else:
                    blank(target, channels, zero)

    return chosen_rows


def gated_depthwise(name: str, module: str, blocks: DepthwiseBlocks) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`."""
    chosen_rows, group, block = _chosen_rows(blocks.copy, blocks.blank), blocks.group, blocks.block

    def kernel(tensors: Tuple, gate: Tuple, scratch: Tuple, geometry: Tuple, zeros: Words, bounds: Words) -> None:
        """tensors: x, weights, records, y. gate: of `Gate.operand`. scratch: strip, open blocks. zeros: of x and y."""
        x, w, records, y = tensors
        strip, opened = scratch
        size, window, out, stride, dilation, pads = geometry
        channels, length = size[2], gate[2]
        kernel_h, kernel_w = window
        out_h, out_w, _ = out
        columns, step = i32((out_w - 1) * stride[1] + kernel_w), i32(kernel_h * channels)
        count, taps = open_blocks(gate, opened), (i32(kernel_h * kernel_w), channels)
        for out_y in range(out_h):
            top, across = i32(out_y * stride[0] - pads[0]), (pads[1], columns, step)
            chosen_rows(x, strip, top, (size, kernel_h, dilation), across, (opened, count, length, zeros[0]))
            row = moved(y, i32(out_y * out_w * channels))
            if count < gate[1]:
                for i in range(i32(out_w * channels)):
                    row[i] = zeros[1]
            for out_x in range(out_w):
                pixels, target = moved(strip, i32(out_x * stride[1] * step)), moved(row, i32(out_x * channels))
                for k in range(count):
                    for part in range(i32(length // i32(group))):
                        c = i32(opened[k] + part * group)
                        record = records, i32(c // i32(group))
                        block(moved(pixels, c), moved(w, c), taps, record, moved(target, c), bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@dataclass(frozen=True)
class GatedDepthwise:
    """kernel: of `gated_depthwise`. usual: the family's arrangement for layers without gates."""

    kernel: Callable[..., None]
    usual: DepthwiseArrangement

    def __call__(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Tensor],
        options: DepthwiseOptions,
        gates: tuple[Gate | None, Gate | None],
    ) -> list[Step] | None:
        """None for what the usual arrangement has none for, and for blocks that cut through its groups."""
        (_, write), (y,) = gates, outputs
        steps = replace(self.usual, coded=None)(inputs, outputs, options)
        if not steps or write is None or write.block % self.usual.group or y.shape[-1] % write.block:
            return None
        tensors, strip, geometry, x_zero, bounds = steps[0].arguments
        opened = Scratch(y.shape[-1] // write.block * 4, np.int32)
        operand = write.operand(y.shape[-1])
        arguments = tensors, operand, (strip, opened), geometry, (x_zero, y.zero), bounds
        return [Step(self.kernel, arguments, steps[0].overlap)]
