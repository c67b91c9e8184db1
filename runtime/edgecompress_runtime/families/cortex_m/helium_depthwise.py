"""DEPTHWISE_CONV_2D with Helium: four channels of a pixel as the lanes of a vector."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.helium import copy, scaled_twice
from edgecompress_runtime.families.shared.arranged_depthwise import (
    DepthwiseArrangement,
    DepthwiseBlocks,
    depthwise,
    tap_sum,
)
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.plain_blocks import blank
from edgecompress_runtime.families.shared.vectors import FOUR_BYTES, LANES, clamped
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, PAIR, RECORD, WORD, address, load, store
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, PAIR, RECORD, INT8_POINTER, PAIR))
def _block(
    b: ir.IRBuilder, window: ir.Value, weights: ir.Value, taps: Tuple, record: Tuple, target: ir.Value, bounds: Tuple
) -> None:
    records = address(b, record[0], b.mul(record[1], WORD(64)), BYTE)
    acc = tap_sum(b, window, weights, taps, load(b, records, 0, LANES))
    y = scaled_twice(b, acc, *(load(b, records, 16 * k, LANES) for k in (1, 2, 3)))
    store(b, b.trunc(clamped(b, y, bounds), FOUR_BYTES), target, 0, 1)


BLOCKS = DepthwiseBlocks(4, copy, blank, _block)
helium_depthwise = depthwise("helium_depthwise", __name__, BLOCKS)
helium_depthwise_coded = depthwise("helium_depthwise_coded", __name__, BLOCKS, coded=True)
DEPTHWISE = DepthwiseArrangement(helium_depthwise, 4, -1, Coded(helium_depthwise_coded, TO_BYTES))
