"""DEPTHWISE_CONV_2D with Helium: a channel's window in one to four vectors, with one sum of products for each.

The strip is turned by channels, [channels][columns][kernel_h], so that a window is one run of bytes, and that of the
next pixel starts some columns further on. A channel's weights stay in registers for a row; four pixels are scaled
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.helium import (
    ChosenBytes,
    dot,
    fill_vectors,
    scaled_twice,
    scatter,
    spread_eight,
    turned_eight,
)
from edgecompress_runtime.families.shared.arranged_depthwise import (
    DepthwiseArrangement,
    decoded,
    depthwise_layer,
    in_flash,
)
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.vectors import BYTES, vector
from edgecompress_runtime.families.shared.words import BYTE, PAIR, PLACE, RECORD, WORD, N, address, load, moved
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, llvm_code
from edgecompress_runtime.options import DepthwiseOptions
from edgecompress_runtime.plan import Tensor

MOST, TOGETHER, LANES = 4, 8, 4  # vectors of a window; channels that are turned together; pixels
FURTHEST = 9361  # bytes from channel to channel, of which seven have 16 bits


def _row_of(vectors: int) -> Callable[..., Any]:
    """For Numba code: a channel of an output row, with windows of so many vectors."""

    @llvm_code(types.void(PLACE, PLACE, RECORD, PLACE, N, PAIR))
    def row(
        b: ir.IRBuilder, windows: Tuple, weights: Tuple, record: Tuple, target: Tuple, pixels: ir.Value, bounds: Tuple
    ) -> None:
        """windows: the first, and bytes to the next. weights: of a window, and their number. record: the records, and
        the number of the channel's. target: of the first pixel, and bytes to the next."""
        (x, x_step), (w, taps), (y, y_step) = windows, weights, target
        held = [load(b, w, 16 * k, BYTES, 1) for k in range(vectors - 1)]
        last = 16 * (vectors - 1)
        held.append(ChosenBytes(b, b.sub(taps, WORD(last))).load(w, last))
        records = address(b, record[0], b.mul(record[1], WORD(16)), BYTE)
        bias, *scale = (vector(b, [load(b, records, 4 * k, WORD)] * LANES) for k in range(4))

        def four(starts: Sequence[ir.Value], places: Sequence[ir.Value]) -> None:
            (x, y), sums = starts, []
            for place in places:
                window, total = address(b, x, b.mul(place, x_step), BYTE), WORD(0)
                for k, weight in enumerate(held):
                    total = dot(b, total, load(b, window, 16 * k, BYTES, 1), weight)
                sums.append(total)
            values = scaled_twice(b, b.add(vector(b, sums), bias), *scale)
            scatter(b, y, vector(b, [b.mul(place, y_step) for place in places]), values, bounds)

        numbers = [WORD(p) for p in range(LANES)]
        steps = [b.mul(step, WORD(LANES)) for step in (x_step, y_step)]
        loop = Loop(b, b.udiv(pixels, WORD(LANES)), [x, y], [])
        four(loop.pointers, numbers)
        loop.close(steps, [])
        with b.if_then(b.icmp_signed("!=", b.urem(pixels, WORD(LANES)), WORD(0))):
            # the last four again; of fewer, the last one several times
            few, end = b.icmp_signed("<", pixels, WORD(LANES)), b.sub(pixels, WORD(1))
            first = b.select(few, WORD(0), b.sub(pixels, WORD(LANES)))
            places = [b.select(b.icmp_signed("<", p, end), p, end) if p.constant else p for p in numbers]
            four([address(b, p, b.mul(first, step), BYTE) for p, step in ((x, x_step), (y, y_step))], places)

    return row


def windows(name: str, module: str, vectors: int, *, coded: bool = False) -> Callable[..., None]:
    """A kernel, to be imported as `name` from `module`. coded: for weights that are decoded first."""
    row_of, taken = _row_of(vectors), decoded if coded else in_flash

    def kernel(tensors: Tuple, strip: Pointer, geometry: Tuple, x_zero: Word, bounds: Tuple) -> None:
        """tensors: x, weights, records, y."""
        x, w, records, y = tensors
        size, window, out, stride, dilation, pads = geometry
        height, width, channels = size
        kernel_h, kernel_w = window
        out_h, out_w, _ = out
        columns, taps = i32((out_w - 1) * stride[1] + kernel_w), i32(kernel_h * kernel_w)
        span, inside = i32(columns * kernel_h), min(width, i32(columns - pads[1]))
        weights = taken(w, i32(taps * channels))
        fill_vectors(strip, i32(i32(channels * span + 15) // i32(16)), x_zero)
        for out_y in range(out_h):
            for ky in range(kernel_h):
                in_y = i32(out_y * stride[0] - pads[0] + ky * dilation)
                source, part = moved(x, i32(in_y * width * channels)), moved(strip, i32(pads[1] * kernel_h + ky))
                for number in range(i32(i32(channels + 7) // i32(8))):
                    c = min(i32(number * 8), i32(channels - 8))  # the last eight again, if need be
                    target = moved(part, i32(c * span)), kernel_h
                    if 0 <= in_y < height:
                        turned_eight((moved(source, c), channels), inside, target, span)
                    else:
                        spread_eight(x_zero, inside, target, span)
            row = moved(y, i32(out_y * out_w * channels))
            for channel in range(channels):
                pixels = moved(strip, i32(channel * span)), i32(stride[1] * kernel_h)
                own = moved(weights, i32(channel * taps)), taps
                row_of(pixels, own, (records, channel), (moved(row, channel), channels), out_w, bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


NAMES = [f"helium_windows_{n}" for n in range(1, MOST + 1)]
helium_windows_1, helium_windows_2, helium_windows_3, helium_windows_4 = PLAIN = [
    windows(name, __name__, n) for n, name in enumerate(NAMES, 1)
]
helium_windows_1_coded, helium_windows_2_coded, helium_windows_3_coded, helium_windows_4_coded = CODED = [
    windows(f"{name}_coded", __name__, n, coded=True) for n, name in enumerate(NAMES, 1)
]


@dataclass(frozen=True)
class WindowArrangement(DepthwiseArrangement):
    """kernel: for windows of one vector. group: channels that are turned together."""

    def __call__(
        self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: DepthwiseOptions
    ) -> list[Step] | None:
        """None for what `depthwise_layer` has none for, rows of one or two pixels, fewer than eight channels, and
        windows of more than 64 values."""
        layer = depthwise_layer(inputs, outputs, options)
        if layer is None:
            return None
        kernel_h, kernel_w, channels = layer.weights.shape
        vectors, span = -(-kernel_h * kernel_w // 16), layer.columns * kernel_h
        if vectors > MOST or span > FURTHEST or channels < self.group or layer.y.shape[2] < LANES - 1:
            return None
        weights = layer.weights.transpose(2, 1, 0).reshape(-1)
        records = layer.scales.records() * np.array([1, 1, 1, self.down], np.int32)
        held = replace(self.coded, kernel=CODED[vectors - 1])(weights, memory=weights.size) if self.coded else None
        # the last window is read in whole vectors
        return [layer.step(PLAIN[vectors - 1], held, (weights, records.reshape(-1)), span * channels + 31)]


WINDOWS = WindowArrangement(PLAIN[0], TOGETHER, -1, Coded(CODED[0], TO_BYTES))
