"""Lists of weights (skipping.py) on CPUs without vectors: one channel of several pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.cortex_m import dsp_blocks
from edgecompress_runtime.families.cortex_m.dsp import widened
from edgecompress_runtime.families.shared import plain_blocks
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.scaling import scaled_once, scaled_twice
from edgecompress_runtime.families.shared.skipping import HEAD, TAIL, Lists, each_its_own, neighbours
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    LONG,
    WORD,
    address,
    function,
    load,
    load_pair,
    moved,
    pinned,
    word_at,
)
from edgecompress_runtime.kernels.arithmetic import clamp, i32

# (builder, x of this entry's inputs, step from pixel to pixel, entries, sums) -> (x, sums)
Entries = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value, list[ir.Value]], tuple[ir.Value, list[ir.Value]]]


def walk(pixels: int, some: int, turns: tuple[tuple[int, Entries], ...]) -> Callable[..., Any]:
    """An intrinsic: (window, x_step, entries, count, bias) -> (sums of `pixels` pixels, where the entries end).

    some: bytes of the entries that are counted as one. turns: (how many of those one turn of a loop takes, and what it
    does with them), the last takes one.
    """

    @intrinsic
    def sums_of(typingctx, window, x_step, entries, count, bias):
        def generate(context, b, signature, args):
            x, x_step, entries, count, bias = args
            values = [bias] * pixels
            for taken, turn in turns:
                loop = Loop(b, count, [entries], [count, x, *values], taken)
                count, x, *values = loop.values
                x, values = turn(b, x, x_step, loop.pointers[0], list(values))
                after = [b.sub(count, WORD(taken)), x, *values]
                (entries,), (count, x, *values) = loop.close([taken * some], after)
            if some % 4:
                after = b.add(b.ptrtoint(entries, LONG), LONG(3))
                entries = b.inttoptr(b.and_(after, LONG(-4)), entries.type)
            sums = context.make_tuple(b, signature.return_type[0], values)
            return context.make_tuple(b, signature.return_type, [sums, entries])

        arguments = INT8_POINTER, types.int32, INT8_POINTER, types.int32, types.int32
        return types.Tuple([types.UniTuple(types.int32, pixels), INT8_POINTER])(*arguments), generate

    return sums_of


def block_of(sums_of: Callable[..., Any], pixels: int, once: bool) -> Callable[..., Any]:
    """See skipping.Lists."""

    @njit(inline="always")
    def one(acc, scale, target, up, low, high):
        multiplier, term, down = scale
        if once:
            scaled = scaled_once(i32(acc << up), multiplier, term, down)
        else:
            scaled = scaled_twice(acc, multiplier, term, down)
        target[0] = clamp(scaled, low, high)

    @njit(inline="always")
    def two(sums, scale, target, y_step, up, low, high):
        one(sums[0], scale, target, up, low, high)
        one(sums[1], scale, moved(target, y_step), up, low, high)

    @njit(inline="always")
    def block(window, x_step, part, target, y_step, up, low, high):
        count, bias = word_at(part, i32(0)), word_at(part, i32(4))
        sums, part = sums_of(window, x_step, moved(part, i32(HEAD)), count, bias)
        scale = word_at(part, i32(0)), word_at(part, i32(4)), word_at(part, i32(8))
        if pixels == 1:
            one(sums[0], scale, target, up, low, high)
        else:
            two(sums, scale, target, y_step, up, low, high)
        if pixels == 4:
            two(sums[2:], scale, moved(target, i32(y_step * 2)), y_step, up, low, high)
        return moved(part, i32(TAIL))

    return block


def one_by_one(many: int) -> Entries:
    """Any CPU: `many` entries of one weight."""

    def turn(b, x, x_step, entries, sums):
        for k in range(many):
            weight = b.sext(load(b, entries, 2 * k, BYTE, 1), WORD)
            x = address(b, x, b.zext(load(b, entries, 2 * k + 1, BYTE, 1), WORD), BYTE)
            values = [b.sext(load(b, x, b.mul(x_step, WORD(p)), BYTE, 1), WORD) for p in range(len(sums))]
            sums = [b.add(s, b.mul(value, weight)) for s, value in zip(sums, values)]
        return x, sums

    return turn


def two_by_two(many: int) -> Entries:
    """Armv7E-M: two entries in a word, its bytes weight, way, weight, way."""

    def turn(b, x, x_step, entries, sums):
        for k in range(many // 2):
            word = load(b, entries, 4 * k, WORD, 1)
            pair = b.call(function(b, "llvm.arm.sxtb16", WORD, WORD), [word])
            lower = b.ashr(b.shl(pair, WORD(16)), WORD(16))
            for weight, shift in ((lower, 8), (b.ashr(pair, WORD(16)), 24)):
                x = address(b, x, b.and_(b.lshr(word, WORD(shift)), WORD(255)), BYTE)
                x = kept(b, x)
                values = [b.sext(load(b, x, b.mul(x_step, WORD(p)), BYTE, 1), WORD) for p in range(len(sums))]
                sums = [b.add(s, b.mul(value, weight)) for s, value in zip(sums, values)]
        return x, sums

    return turn


def kept(b: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """In a register, or LLVM adds up its parts once more for the first pixel."""
    (word,) = pinned(b, [b.ptrtoint(pointer, WORD)])
    return b.inttoptr(word, pointer.type)


def four_inputs(many: int) -> Entries:
    """Armv7E-M, in a widened strip: entries of four weights."""

    def turn(b, x, x_step, entries, sums):
        smlad = function(b, "llvm.arm.smlad", WORD, WORD, WORD, WORD)
        for k in range(many):
            ws = widened(b, load(b, entries, 5 * k, WORD, 1))
            x = address(b, x, b.shl(b.zext(load(b, entries, 5 * k + 4, BYTE, 1), WORD), WORD(3)), BYTE)
            for p in range(len(sums)):
                pixel = address(b, x, b.mul(x_step, WORD(p)), BYTE)
                for value, weight in zip(load_pair(b, pixel, 0), ws):
                    sums[p] = b.call(smlad, [value, weight, sums[p]])
            sums = pinned(b, sums)
        return x, sums

    return turn


def plain_block(pixels: int, once: bool) -> Callable[..., Any]:
    return block_of(walk(pixels, 2, ((2, one_by_one(2)), (1, one_by_one(1)))), pixels, once)


def dsp_block(pixels: int, once: bool) -> Callable[..., Any]:
    turns = ((1, two_by_two(2)),)
    return block_of(walk(pixels, 4, turns if pixels == 4 else ((2, two_by_two(4)), *turns)), pixels, once)


def dsp_four_block(pixels: int, once: bool) -> Callable[..., Any]:
    return block_of(walk(pixels, 5, ((2, four_inputs(2)), (1, four_inputs(1)))), pixels, once)


PLAIN = Lists(1, each_its_own(neighbours(1)), True, 1, 1, plain_blocks.copy, plain_blocks.blank, plain_block)
DSP = replace(PLAIN, listed=each_its_own(neighbours(1), 2), block=dsp_block)
DSP_FOUR = Lists(4, each_its_own(neighbours(4)), True, 2, 4, dsp_blocks.copy, dsp_blocks.blank, dsp_four_block)
