"""Convolution for any CPU: int8 strip, weights straight from flash, two by two sums in registers."""

from __future__ import annotations

from dataclasses import replace

from llvmlite import ir

from edgecompress_runtime.families.shared.arranged_convolution import Arrangement, channel_records
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES, bank_of_bytes
from edgecompress_runtime.families.shared.gated_convolution import GatedArrangement, gated_convolution
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.words import BYTE, FOUR, INT8_POINTER, PAIR, PLACE, WORD, N, address, load
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code

UNROLLED = 4


@llvm_code(FOUR(PLACE, INT8_POINTER, N, PAIR))
def _dot_2x2(b: ir.IRBuilder, window: Tuple, w: ir.Value, depth: ir.Value, biases: Tuple) -> list[ir.Value]:
    """Two pixels by two channels: (x0 w0, x0 w1, x1 w0, x1 w1). w: int8 of both channels by turns."""
    x, x_step = window
    pointers, sums = [x, w], [*biases, *biases]
    for count, unrolled in ((b.udiv(depth, WORD(UNROLLED)), UNROLLED), (b.urem(depth, WORD(UNROLLED)), 1)):
        loop = Loop(b, count, pointers, sums)
        second, sums = address(b, loop.pointers[0], x_step, BYTE), list(loop.values)
        for k in range(unrolled):
            xs = [b.sext(load(b, p, k, BYTE, 1), WORD) for p in (loop.pointers[0], second)]
            ws = [b.sext(load(b, loop.pointers[1], 2 * k + o, BYTE, 1), WORD) for o in (0, 1)]
            sums = [b.add(s, b.mul(xs[i // 2], ws[i % 2])) for i, s in enumerate(sums)]
        pointers, sums = loop.close([unrolled, 2 * unrolled], sums)
    return sums


@inline
def copy(source: Pointer, target: Pointer, n: Word) -> None:
    """n bytes, one by one."""
    for c in range(n):
        target[c] = source[c]


@inline
def blank(target: Pointer, n: Word, zero: Word) -> None:
    """n bytes that are `zero`, one by one."""
    for c in range(n):
        target[c] = zero


@inline
def bank_in_flash(w: Pointer, bank: Pointer, first: Word, groups: Word, depth: Word) -> Pointer:
    """Blocks.bank for weights that are read where they lie; there is one part of them alone."""
    return w


@inline
def biases_of(record: Tuple) -> Words:
    """The biases of the two channels of a record in the form of `channel_records`."""
    records, r = record[0], i32(record[1] * 8)
    return records[r], records[i32(r + 4)]


@inline
def store_2x2(sums: Words, record: Tuple, target: Tuple, bounds: Words) -> None:
    """Two pixels by two channels, requantized; record: in the form of `channel_records`."""
    records, r = record[0], i32(record[1] * 8)
    y, y_step = target
    low, high = bounds
    a, b, c, d = sums
    m0, t0, d0 = records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]
    m1, t1, d1 = records[i32(r + 5)], records[i32(r + 6)], records[i32(r + 7)]
    y[0] = clamp(scaled_twice(a, m0, t0, d0), low, high)
    y[1] = clamp(scaled_twice(b, m1, t1, d1), low, high)
    y[y_step] = clamp(scaled_twice(c, m0, t0, d0), low, high)
    y[i32(y_step + 1)] = clamp(scaled_twice(d, m1, t1, d1), low, high)


@inline
def _block(window: Tuple, weights: Pointer, depth: Word, record: Tuple, target: Tuple, bounds: Words) -> None:
    """weights: of both channels by turns."""
    store_2x2(_dot_2x2(window, weights, depth, biases_of(record)), record, target, bounds)


BLOCKS = Blocks(1, 1, copy, blank, bank_in_flash, _block)
CODED = replace(BLOCKS, bank=bank_of_bytes)
plain_convolution = strip_convolution("plain_convolution", __name__, BLOCKS)
plain_convolution_coded = strip_convolution("plain_convolution_coded", __name__, CODED)
CONVOLUTION = Arrangement(plain_convolution, 1, 1, 1, False, channel_records, Coded(plain_convolution_coded, TO_BYTES))
plain_gated_convolution = gated_convolution("plain_gated_convolution", __name__, BLOCKS, 4)
GATED = GatedArrangement(plain_gated_convolution, CONVOLUTION)
