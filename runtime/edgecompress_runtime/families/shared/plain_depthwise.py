"""DEPTHWISE_CONV_2D for any CPU: one channel of one pixel after the other."""

from __future__ import annotations

from llvmlite import ir

from edgecompress_runtime.families.shared.arranged_depthwise import (
    DepthwiseArrangement,
    DepthwiseBlocks,
    depthwise,
    tap_sum,
)
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.gated_depthwise import GatedDepthwise, gated_depthwise
from edgecompress_runtime.families.shared.plain_blocks import blank, copy
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.words import INT8_POINTER, PAIR, N
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Words, inline, llvm_code


@llvm_code(N(INT8_POINTER, INT8_POINTER, PAIR, N))
def _channel_sum(b: ir.IRBuilder, x: ir.Value, w: ir.Value, taps: Tuple, bias: ir.Value) -> ir.Value:
    return tap_sum(b, x, w, taps, bias)


@inline
def _block(window: Pointer, weights: Pointer, taps: Words, record: Tuple, target: Pointer, bounds: Words) -> None:
    records, r = record[0], i32(record[1] * 4)
    acc = _channel_sum(window, weights, taps, records[r])
    scaled = scaled_twice(acc, records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)])
    target[0] = clamp(scaled, bounds[0], bounds[1])


BLOCKS = DepthwiseBlocks(1, copy, blank, _block)
plain_depthwise = depthwise("plain_depthwise", __name__, BLOCKS)
plain_depthwise_coded = depthwise("plain_depthwise_coded", __name__, BLOCKS, coded=True)
DEPTHWISE = DepthwiseArrangement(plain_depthwise, 1, 1, Coded(plain_depthwise_coded, TO_BYTES))
plain_gated_depthwise = gated_depthwise("plain_gated_depthwise", __name__, BLOCKS)
GATED = GatedDepthwise(plain_gated_depthwise, DEPTHWISE)
