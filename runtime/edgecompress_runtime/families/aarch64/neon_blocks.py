"""Convolution with NEON: four pixels by four channels, whose sums stay in registers, 16 weights of each at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from edgecompress_runtime.families.aarch64.neon import LEAST, blank, copy, dot, narrowed, scaled_twice, totals
from edgecompress_runtime.families.shared.arranged_convolution import Arrangement
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.plain_blocks import bank_in_flash
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.vectors import BYTES, LANES
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    PAIR,
    PLACE,
    RECORD,
    WORD,
    N,
    address,
    load,
    store,
)
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code

PIXELS, CHANNELS = 4, 4
UNROLLED = 2  # vectors in an iteration: loaded in pairs


def block_sums(
    b: ir.IRBuilder, has_dot: bool, xs: list[ir.Value], w: ir.Value, vectors: ir.Value
) -> list[list[ir.Value]]:
    """The sums of four channels for each of xs, each four lanes to be added up. w: a vector of each in turn."""
    pointers, sums = [*xs, w], [ir.Constant(LANES, [0] * 4)] * (CHANNELS * len(xs))
    for count, unrolled in ((b.udiv(vectors, WORD(UNROLLED)), UNROLLED), (b.urem(vectors, WORD(UNROLLED)), 1)):
        loop = Loop(b, count, pointers, sums)
        sums = list(loop.values)
        values = [[load(b, p, 16 * k, BYTES, 1) for k in range(unrolled)] for p in loop.pointers[:-1]]
        for k in range(unrolled):
            ws = [load(b, loop.pointers[-1], 16 * (k * CHANNELS + o), BYTES, 16) for o in range(CHANNELS)]
            sums = [dot(b, has_dot, s, values[i // CHANNELS][k], ws[i % CHANNELS]) for i, s in enumerate(sums)]
        steps: list[int | ir.Value] = [*[16 * unrolled] * len(xs), 16 * unrolled * CHANNELS]
        pointers, sums = loop.close(steps, sums)
    return [sums[i : i + CHANNELS] for i in range(0, len(sums), CHANNELS)]


def _block_of(has_dot: bool) -> Callable[..., Any]:
    @llvm_code(types.void(PLACE, INT8_POINTER, N, RECORD, PLACE, PAIR))
    def block(
        b: ir.IRBuilder, window: Tuple, w: ir.Value, depth: ir.Value, record: Tuple, target: Tuple, bounds: Tuple
    ) -> None:
        """depth: a multiple of 16."""
        (x, x_step), (y, y_step) = window, target
        records = address(b, record[0], b.mul(record[1], WORD(64)), BYTE)
        xs = [address(b, x, b.mul(x_step, WORD(p)), BYTE) for p in range(PIXELS)]
        bias, multiplier, term, up = (load(b, records, 16 * k, LANES) for k in range(4))
        rows = block_sums(b, has_dot, xs, w, b.udiv(depth, WORD(16)))
        values = [scaled_twice(b, b.add(totals(b, sums), bias), multiplier, term, up) for sums in rows]
        result = b.bitcast(narrowed(b, values, bounds), LANES)
        for p in range(PIXELS):
            store(b, b.extract_element(result, WORD(p)), y, b.mul(y_step, WORD(p)), 1)

    return block


def _records(scales: Scaling, groups: np.ndarray) -> np.ndarray:
    """int32 [groups, 4, 4]: biases, multipliers, terms and negative shifts of four channels."""
    rows = np.stack([scales.bias, scales.multiplier, scales.term, -scales.down]).astype(np.int32)
    return rows[:, groups].reshape(4, -1, CHANNELS).transpose(1, 0, 2)


def _blocks(has_dot: bool) -> Blocks:
    return Blocks(1, 16, copy, blank, bank_in_flash, _block_of(has_dot), PIXELS, CHANNELS)


neon_convolution = strip_convolution("neon_convolution", __name__, _blocks(False))
neon_dot_convolution = strip_convolution("neon_dot_convolution", __name__, _blocks(True))
CONVOLUTION = Arrangement(neon_convolution, 16, 1, 16, False, _records, None, CHANNELS, LEAST)
DOT_CONVOLUTION = replace(CONVOLUTION, kernel=neon_dot_convolution, least=-128)
