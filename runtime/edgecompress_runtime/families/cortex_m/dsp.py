"""Armv7E-M and Armv8-M with the DSP extension (Cortex-M4, M7, M33): SMLAD multiplies two pairs of int16 and adds.

Both operands are widened to int16 in scratch memory once and read many times. SXTB16 takes bytes 0 and 2 of a
word, rotated by 8 bits bytes 1 and 3; widened data keep that order, "fours" of bytes as two words each.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.words import (
    BYTE,
    FOUR,
    INT8_POINTER,
    PAIR,
    PLACE,
    WORD,
    N,
    address,
    function,
    load,
    load_pair,
    pinned,
    store,
)
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code

UNROLLED = 4  # fours in an iteration


def widened(builder: ir.IRBuilder, word: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Four bytes -> (bytes 0 and 2, bytes 1 and 3) as pairs of int16."""
    extend = function(builder, "llvm.arm.sxtb16", WORD, WORD)
    rotate = function(builder, "llvm.fshr.i32", WORD, WORD, WORD, WORD)
    return builder.call(extend, [word]), builder.call(extend, [builder.call(rotate, [word, word, WORD(8)])])


def _split(builder: ir.IRBuilder, count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(iterations of UNROLLED, iterations of one) that make `count`."""
    return builder.udiv(count, WORD(UNROLLED)), builder.urem(count, WORD(UNROLLED))


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, N))
def widen(b: ir.IRBuilder, source: ir.Value, target: ir.Value, fours: ir.Value) -> None:
    """int8 [4 * fours] at `source` -> int16 at `target`, whose address is a multiple of 4."""
    pointers = [source, target]
    for count, unrolled in zip(_split(b, fours), (UNROLLED, 1)):
        loop = Loop(b, count, pointers, [])
        for k in range(unrolled):
            low, high = widened(b, load(b, loop.pointers[0], 4 * k, WORD, 1))
            store(b, low, loop.pointers[1], 8 * k)
            store(b, high, loop.pointers[1], 8 * k + 4)
        pointers, _ = loop.close([4 * unrolled, 8 * unrolled], [])


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, N))
def copy_words(b: ir.IRBuilder, source: ir.Value, target: ir.Value, count: ir.Value) -> None:
    """4 * count bytes; neither address need be a multiple of 4."""
    pointers = [source, target]
    for words, unrolled in ((b.udiv(count, WORD(4)), 4), (b.urem(count, WORD(4)), 1)):
        loop = Loop(b, words, pointers, [])
        for k in range(unrolled):
            store(b, load(b, loop.pointers[0], 4 * k, WORD, 1), loop.pointers[1], 4 * k, 1)
        pointers, _ = loop.close([4 * unrolled] * 2, [])


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, PAIR, N))
def widen_less(b: ir.IRBuilder, source: ir.Value, target: ir.Value, fours: Tuple, minus: ir.Value) -> None:
    """The same plus the halves of `minus`; fours: their number, and bytes from one to the next at `target`."""
    extend = function(b, "llvm.arm.sxtab16", WORD, WORD, WORD)
    rotate = function(b, "llvm.fshr.i32", WORD, WORD, WORD, WORD)
    count, step = fours
    loop = Loop(b, count, [source, target], [])
    word = load(b, loop.pointers[0], 0, WORD, 1)
    store(b, b.call(extend, [minus, word]), loop.pointers[1], 0)
    store(b, b.call(extend, [minus, b.call(rotate, [word, word, WORD(8)])]), loop.pointers[1], 4)
    loop.close([4, step], [])


@llvm_code(FOUR(PLACE, INT8_POINTER, N, PAIR))
def dot_2x2(b: ir.IRBuilder, window: Tuple, w: ir.Value, fours: ir.Value, biases: Tuple) -> list[ir.Value]:
    """Two pixels by two channels: (x0 w0, x0 w1, x1 w0, x1 w1), each from its channel's bias.

    window: the first pixel's int16, and how many bytes on the second's lie; w: int16 of both channels by turns, four
    each.
    """
    x, x_step = window
    smlad = function(b, "llvm.arm.smlad", WORD, WORD, WORD, WORD)
    pointers, sums = [x, w], [*biases, *biases]
    for count, unrolled in zip(_split(b, fours), (UNROLLED, 1)):
        loop = Loop(b, count, pointers, sums)
        second = address(b, loop.pointers[0], x_step, BYTE)
        sums = list(loop.values)
        for k in range(unrolled):
            xs: dict[int, tuple[ir.Value, ir.Value]] = {}
            for o in (0, 1):
                if o == 0:
                    xs[0] = load_pair(b, loop.pointers[0], 8 * k)
                ws = load_pair(b, loop.pointers[1], 16 * k + 8 * o)
                if o == 0:
                    xs[1] = load_pair(b, second, 8 * k)
                for h, p in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    sums[2 * p + o] = b.call(smlad, [xs[p][h], ws[h], sums[2 * p + o]])
                sums[o], sums[2 + o] = pinned(b, [sums[o], sums[2 + o]])
        pointers, sums = loop.close([8 * unrolled, 16 * unrolled], sums)
    return sums
