"""Armv7E-M and Armv8-M with the DSP extension (Cortex-M4, M7, M33): SMLAD multiplies two pairs of int16 and adds.

Both operands are widened to int16 in scratch memory once and read many times. SXTB16 takes bytes 0 and 2 of a
word, rotated by 8 bits bytes 1 and 3; widened data keep that order, "fours" of bytes as two words each.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    WORD,
    address,
    function,
    load,
    load_pair,
    pinned,
    store,
)

UNROLLED = 4  # fours in an iteration


def widened(builder: ir.IRBuilder, word: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Four bytes -> (bytes 0 and 2, bytes 1 and 3) as pairs of int16."""
    extend = function(builder, "llvm.arm.sxtb16", WORD, WORD)
    rotate = function(builder, "llvm.fshr.i32", WORD, WORD, WORD, WORD)
    return builder.call(extend, [word]), builder.call(extend, [builder.call(rotate, [word, word, WORD(8)])])


def split(builder: ir.IRBuilder, count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(iterations of UNROLLED, iterations of one) that make `count`."""
    return builder.udiv(count, WORD(UNROLLED)), builder.urem(count, WORD(UNROLLED))


@intrinsic
def widen(typingctx, source, target, fours):
    """int8 [4 * fours] at `source` -> int16 at `target`, whose address is a multiple of 4."""

    def generate(context, builder, signature, args):
        pointers = list(args[:2])
        for count, unrolled in zip(split(builder, args[2]), (UNROLLED, 1)):
            loop = Loop(builder, count, pointers, [])
            for k in range(unrolled):
                low, high = widened(builder, load(builder, loop.pointers[0], 4 * k, WORD, 1))
                store(builder, low, loop.pointers[1], 8 * k)
                store(builder, high, loop.pointers[1], 8 * k + 4)
            pointers, _ = loop.close([4 * unrolled, 8 * unrolled], [])
        return context.get_dummy_value()

    return types.void(INT8_POINTER, INT8_POINTER, types.int32), generate


@intrinsic
def dot_2x2(typingctx, x, x_step, w, fours, bias_0, bias_1):
    """Two pixels by two channels: (x0 w0, x0 w1, x1 w0, x1 w1), each from its channel's bias.

    x: the first pixel's int16, the second's lie x_step bytes on; w: int16 of both channels by turns, four each.
    """

    def generate(context, builder, signature, args):
        x, x_step, w, fours, *biases = args
        smlad = function(builder, "llvm.arm.smlad", WORD, WORD, WORD, WORD)
        pointers, sums = [x, w], [*biases, *biases]
        for count, unrolled in zip(split(builder, fours), (UNROLLED, 1)):
            loop = Loop(builder, count, pointers, sums)
            second = address(builder, loop.pointers[0], x_step, BYTE)
            sums = list(loop.values)
            for k in range(unrolled):
                xs = [None, None]
                for o in (0, 1):
                    xs[0] = xs[0] or load_pair(builder, loop.pointers[0], 8 * k)
                    ws = load_pair(builder, loop.pointers[1], 16 * k + 8 * o)
                    xs[1] = xs[1] or load_pair(builder, second, 8 * k)
                    for h, p in ((0, 0), (0, 1), (1, 0), (1, 1)):
                        sums[2 * p + o] = builder.call(smlad, [xs[p][h], ws[h], sums[2 * p + o]])
                    sums[o], sums[2 + o] = pinned(builder, [sums[o], sums[2 + o]])
            pointers, sums = loop.close([8 * unrolled, 16 * unrolled], sums)
        return context.make_tuple(builder, signature.return_type, sums)

    result = types.UniTuple(types.int32, 4)
    arguments = (INT8_POINTER, types.int32, INT8_POINTER, types.int32, types.int32, types.int32)
    return result(*arguments), generate
