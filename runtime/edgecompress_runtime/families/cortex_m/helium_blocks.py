"""Convolution with Helium. The four sums of a block become the lanes of a vector: first channel, second, both again for
the second pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.helium import copy, dot, scaled_twice, scatter
from edgecompress_runtime.families.cortex_m.helium_signs import Signs, bank_of
from edgecompress_runtime.families.shared.arranged_convolution import Arrangement
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES, bank_of_bytes
from edgecompress_runtime.families.shared.plain_blocks import bank_in_flash, blank
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.vectors import BYTES, LANES, vector
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, PAIR, PLACE, RECORD, WORD, N, address, load
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code


def _records(scales: Scaling, pairs: np.ndarray) -> np.ndarray:
    """int32 [pairs, 4, 4]: biases, multipliers, terms and negative shifts of two channels, twice."""
    rows = np.stack([scales.bias, scales.multiplier, scales.term, -scales.down]).astype(np.int32)
    return np.tile(rows[:, pairs].reshape(4, -1, 2).transpose(1, 0, 2), (1, 1, 2))


@llvm_code(types.void(PLACE, INT8_POINTER, N, RECORD, PLACE, PAIR))
def _block(
    b: ir.IRBuilder, window: Tuple, w: ir.Value, depth: ir.Value, record: Tuple, target: Tuple, bounds: Tuple
) -> None:
    """w: a channel's weights, then the other's; depth a multiple of 16."""
    (x, x_step), (y, y_step) = window, target
    records = address(b, record[0], b.mul(record[1], WORD(64)), BYTE)
    biases = [load(b, records, 4 * o, WORD) for o in (0, 1)]
    starts = [x, address(b, x, x_step, BYTE), w, address(b, w, depth, BYTE)]
    loop = Loop(b, b.udiv(depth, WORD(16)), starts, [*biases, *biases])
    x0, x1, w0, w1 = (load(b, p, 0, BYTES, 1) for p in loop.pointers)
    pairs = ((x0, w0), (x0, w1), (x1, w0), (x1, w1))
    sums = [dot(b, s, *pair) for s, pair in zip(loop.values, pairs)]
    _, sums = loop.close([16] * 4, sums)
    values = scaled_twice(b, vector(b, sums), *(load(b, records, 16 * k, LANES) for k in (1, 2, 3)))
    scatter(b, y, vector(b, [WORD(0), WORD(1), y_step, b.add(y_step, WORD(1))]), values, bounds)


BLOCKS = Blocks(1, 16, copy, blank, bank_in_flash, _block)
CODED = replace(BLOCKS, bank=bank_of_bytes)
helium_convolution = strip_convolution("helium_convolution", __name__, BLOCKS)
helium_convolution_coded = strip_convolution("helium_convolution_coded", __name__, CODED)
helium_convolution_binary = strip_convolution("helium_convolution_binary", __name__, replace(BLOCKS, bank=bank_of(1)))
helium_convolution_ternary = strip_convolution("helium_convolution_ternary", __name__, replace(BLOCKS, bank=bank_of(2)))
SIGNS = Signs(helium_convolution_binary, bits=1), Signs(helium_convolution_ternary, bits=2)
HELD = Coded(helium_convolution_coded, TO_BYTES, first=SIGNS)
CONVOLUTION = Arrangement(helium_convolution, 0, 1, 16, False, _records, HELD)
