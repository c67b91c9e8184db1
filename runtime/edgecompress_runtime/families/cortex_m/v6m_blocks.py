"""Armv6-M (Cortex-M0, M0+) and Armv8-M Baseline: eight registers, signed bytes only at a sum of two of them.

A block of two by two keeps half of its sums and pointers on the stack, and loads each byte in two instructions. One
pixel by two channels fits: three rows of bytes at one index, in steps of one, and two sums.
"""

from __future__ import annotations

from dataclasses import replace

from llvmlite import ir

from edgecompress_runtime.families.shared.arranged_convolution import Arrangement, channel_records
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.decoding import TO_BYTES, bank_of_bytes
from edgecompress_runtime.families.shared.gated_convolution import GatedArrangement, gated_convolution
from edgecompress_runtime.families.shared.plain_blocks import BLOCKS as PLAIN
from edgecompress_runtime.families.shared.plain_blocks import biases_of
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.strip_convolution import strip_convolution
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, PAIR, WORD, N, address, load, moved, pinned
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code

UNROLLED = 8


@llvm_code(PAIR(INT8_POINTER, INT8_POINTER, N, PAIR))
def _dot_1x2(b: ir.IRBuilder, x: ir.Value, w: ir.Value, depth: ir.Value, biases: Tuple) -> list[ir.Value]:
    """One pixel by two channels: (x w0, x w1). w: a channel's weights, then the other's."""
    rows, start, sums = [x, w, address(b, w, depth, BYTE)], WORD(0), list(biases)
    for unrolled in (UNROLLED, 1):
        entry, body, done = b.block, b.append_basic_block("body"), b.append_basic_block("done")
        end = b.sub(depth, WORD(unrolled - 1))
        b.cbranch(b.icmp_signed("<", start, end), body, done)
        b.position_at_end(body)
        phis = [b.phi(WORD) for _ in range(3)]
        for phi, value in zip(phis, [start, *sums]):
            phi.add_incoming(value, entry)
        k, *totals = phis
        for _ in range(unrolled):
            value, *weights = (b.sext(load(b, row, k, BYTE, 1), WORD) for row in rows)
            totals = [b.add(t, b.mul(value, weight)) for t, weight in zip(totals, weights)]
            # or LLVM adds the index to the addresses, and puts the second channel's products off
            k, *totals = pinned(b, [b.add(k, WORD(1)), *totals])
        for phi, value in zip(phis, [k, *totals]):
            phi.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed("<", k, end), body, done)
        last = b.block
        b.position_at_end(done)
        merged = [b.phi(WORD) for _ in range(3)]
        for phi, before, after in zip(merged, [start, *sums], [k, *totals]):
            phi.add_incoming(before, entry)
            phi.add_incoming(after, last)
        start, *sums = merged
    return sums


@inline
def _block(window: Tuple, weights: Pointer, depth: Word, record: Tuple, target: Tuple, bounds: Words) -> None:
    records, r = record[0], i32(record[1] * 8)
    y, y_step = target
    low, high = bounds
    at = i32(0)
    for pixel in range(2):
        a, b = _dot_1x2(moved(window[0], i32(pixel * window[1])), weights, depth, biases_of(record))
        m0, t0, d0 = records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]
        m1, t1, d1 = records[i32(r + 5)], records[i32(r + 6)], records[i32(r + 7)]
        y[at] = clamp(scaled_twice(a, m0, t0, d0), low, high)
        y[i32(at + 1)] = clamp(scaled_twice(b, m1, t1, d1), low, high)
        at = y_step


BLOCKS = replace(PLAIN, block=_block)
CODED = replace(BLOCKS, bank=bank_of_bytes)
v6m_convolution = strip_convolution("v6m_convolution", __name__, BLOCKS)
v6m_convolution_coded = strip_convolution("v6m_convolution_coded", __name__, CODED)
CONVOLUTION = Arrangement(v6m_convolution, 0, 1, 1, False, channel_records, Coded(v6m_convolution_coded, TO_BYTES))
v6m_gated_convolution = gated_convolution("v6m_gated_convolution", __name__, BLOCKS, 4)
GATED = GatedArrangement(v6m_gated_convolution, CONVOLUTION)
