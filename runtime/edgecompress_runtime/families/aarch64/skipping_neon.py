"""Lists of weights (skipping.py) with NEON: sixteen channels share one, whose inputs are picked from a window (TBL)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from edgecompress_runtime.families.aarch64.neon import blank, copy, dot, narrowed, scaled_twice
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.skipping import Lists, by_name, skipping_kernels, words
from edgecompress_runtime.families.shared.vectors import BYTES, LANES
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    PAIR,
    PLACE,
    WORD,
    address,
    function,
    load,
    store,
)
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code

CHANNELS, EACH, WINDOW = 16, 4, 64  # of a list; weights of a channel in an entry; bytes that one table look-up reaches
VECTORS, LANE_COUNT = 4, 4
RECORDS, CELLS = 16 * CHANNELS, 2 * EACH * CHANNELS  # bytes of the channels' scales; of an entry's inputs and weights
# where the weights of a vector's channels lie, so that their products meet in a channel's lane (neon.dot)
PLACES = {True: np.arange(16).reshape(4, 4), False: np.array([[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13],
                                                              [6, 7, 14, 15]])}  # fmt: skip


def _shared_lists(has_dot: bool) -> Callable[[np.ndarray, Scaling], tuple[int, np.ndarray] | None]:
    """See Lists.listed. A list: of each vector of four channels the biases, multipliers, terms and negative shifts; an
    int32, how many entries there are; the entries: for each vector the numbers of 16 inputs in a window, and their
    weights, then an int32, how far the window lies behind the one before."""
    least, order = -128 if has_dot else -127, np.argsort(PLACES[has_dot].reshape(-1))

    def listed(weights: np.ndarray, scales: Scaling) -> tuple[int, np.ndarray] | None:
        channels, places = weights.shape
        if channels < CHANNELS or places < WINDOW or weights.min() < least:
            return None
        records = np.stack([scales.bias, scales.multiplier, scales.term, -scales.down]).astype(np.int32)
        parts, total = [], 0
        for first in range(0, channels, CHANNELS):
            first = min(first, channels - CHANNELS)
            own = slice(first, first + CHANNELS)
            ways, cells = entries(weights[own], order)
            total += len(ways)
            held = np.concatenate([cells, ways[:, None].view(np.int8)], axis=1)
            scale = records[:, own].reshape(4, VECTORS, LANE_COUNT).transpose(1, 0, 2)
            parts += [words(scale.reshape(-1)), words([len(ways)]), held.reshape(-1)]
        return total, np.concatenate(parts)

    return listed


def entries(weights: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 [16, places] -> int32 [n], int8 [n, 128]. In an entry each channel takes its next weights that are not zero,
    as far as they lie in a window that starts no later than the first that is left."""
    places = weights.shape[1]
    counts = np.count_nonzero(weights, axis=1)
    left = np.full((CHANNELS, counts.max() + EACH), places)
    for channel, row in enumerate(weights):
        left[channel, : counts[channel]] = np.flatnonzero(row)
    taken, rows, at, ways, cells = np.zeros(CHANNELS, np.int64), np.arange(CHANNELS)[:, None], 0, [], []
    while (next_ones := left[rows, taken[:, None] + np.arange(EACH)])[:, 0].min() < places:
        start = min(int(next_ones[:, 0].min()), places - WINDOW)
        fits = (next_ones < places) & (next_ones < start + WINDOW)
        inputs = np.where(fits, next_ones, start)
        values = np.where(fits, weights[rows, inputs], 0)
        cell = np.stack([inputs - start, values]).reshape(2, VECTORS, 16)[:, :, order]
        cells.append(cell.transpose(1, 0, 2).reshape(-1).astype(np.int8))
        ways.append(start - at)
        at = start
        taken += fits.sum(axis=1)
    return np.array(ways, np.int32), np.array(cells, np.int8).reshape(len(ways), CELLS)


def _block_of(has_dot: bool) -> Callable[[int], Callable[..., Any]]:
    def block(pixels: int) -> Callable[..., Any]:
        @llvm_code(INT8_POINTER(PLACE, INT8_POINTER, PLACE, PAIR))
        def stored(b: ir.IRBuilder, window: Tuple, part: ir.Value, target: Tuple, bounds: Tuple) -> ir.Value:
            (x, x_step), (y, y_step) = window, target
            record = [[load(b, part, 64 * v + 16 * k, LANES) for k in range(4)] for v in range(VECTORS)]
            start = [bias for _ in range(pixels) for bias, *_ in record]
            sums, part = sums_of(b, x, x_step, part, start)
            for p in range(pixels):
                own = zip(sums[VECTORS * p :], record)
                values = [scaled_twice(b, acc, *fields[1:]) for acc, fields in own]
                store(b, narrowed(b, values, bounds), y, b.mul(y_step, WORD(p)), 1)
            return part

        return stored

    def sums_of(
        b: ir.IRBuilder, x: ir.Value, x_step: ir.Value, part: ir.Value, sums: list[ir.Value]
    ) -> tuple[list[ir.Value], ir.Value]:
        """sums: of each pixel's vectors. And where the list ends."""
        loop = Loop(b, load(b, part, RECORDS, WORD), [address(b, part, RECORDS + 4, BYTE)], [x, *sums])
        (entry,), (x, *sums) = loop.pointers, loop.values
        x = address(b, x, load(b, entry, CELLS, WORD), BYTE)
        cells = [[load(b, entry, 32 * v + 16 * k, BYTES) for k in range(2)] for v in range(VECTORS)]
        pick = function(b, "llvm.aarch64.neon.tbl4.v16i8", BYTES, *[BYTES] * 5)
        pixels = len(sums) // VECTORS
        pixel = x
        for p in range(pixels):
            table = [load(b, pixel, 16 * k, BYTES, 1) for k in range(4)]
            for v, (numbers, weights) in enumerate(cells):
                i = VECTORS * p + v
                sums[i] = dot(b, has_dot, sums[i], b.call(pick, [*table, numbers]), weights)
            if p < pixels - 1:
                own = slice(VECTORS * p, VECTORS * (p + 1))
                pixel, *sums[own] = _behind(b, address(b, x, b.mul(x_step, WORD(p + 1)), BYTE), sums[own])
        (end,), (_, *sums) = loop.close([CELLS + 4], [x, *sums])
        return sums, end

    return block


def _behind(b: ir.IRBuilder, pointer: ir.Value, vectors: list[ir.Value]) -> list[ir.Value]:
    """The same, but what is loaded from the pointer is so behind the vectors' instructions: LLVM's scheduler would load
    more than there are registers. An empty piece of assembly: no instruction."""
    kinds = [pointer.type, *(v.type for v in vectors)]
    outputs = ["=r", *["=w"] * len(vectors)]
    constraints = ",".join(outputs + [str(i) for i in range(len(kinds))])
    kind = ir.LiteralStructType(kinds)
    result = b.asm(ir.FunctionType(kind, kinds), "", constraints, [pointer, *vectors], side_effect=True)
    return [b.extract_value(result, i) for i in range(len(kinds))]


def _lists(has_dot: bool) -> Lists:
    return Lists(EACH * CHANNELS, _shared_lists(has_dot), False, 1, 1, copy, blank, _block_of(has_dot), CHANNELS)


NEON, NEON_DOT = _lists(False), _lists(True)
KERNELS = skipping_kernels("neon", __name__, NEON)
DOT_KERNELS = skipping_kernels("neon_dot", __name__, NEON_DOT)
globals().update(by_name(KERNELS) | by_name(DOT_KERNELS))  # generated text imports them
