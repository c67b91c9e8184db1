"""Lists of weights (skipping.py) on CPUs without vectors: one channel of several pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.plain_blocks import blank, copy
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.skipping import (
    HEAD,
    TAIL,
    Lists,
    by_name,
    each_its_own,
    neighbours,
    skipping_kernels,
)
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    LONG,
    PLACE,
    WORD,
    N,
    address,
    load,
    moved,
    word_at,
)
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code

Values = list[ir.Value]
# (builder, x of this entry's inputs, step from pixel to pixel, entries, sums) -> (x, sums)
Entries = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value, Values], tuple[ir.Value, Values]]


def walk(pixels: int, some: int, turns: tuple[tuple[int, Entries], ...]) -> Callable[..., Any]:
    """For Numba code: (window, entries, count, bias) -> (sums of `pixels` pixels, where the entries end).

    some: bytes of the entries that are counted as one. turns: (how many of those one turn of a loop takes, and what it
    does with them), the last takes one.
    """

    @llvm_code(types.Tuple([types.UniTuple(N, pixels), INT8_POINTER])(PLACE, INT8_POINTER, N, N))
    def sums_of(b: ir.IRBuilder, window: Tuple, entries: ir.Value, count: ir.Value, bias: ir.Value) -> Tuple:
        x, x_step = window
        values = [bias] * pixels
        for taken, turn in turns:
            loop = Loop(b, count, [entries], [count, x, *values], taken)
            count, x, *values = loop.values
            x, values = turn(b, x, x_step, loop.pointers[0], list(values))
            after = [b.sub(count, WORD(taken)), x, *values]
            (entries,), (count, x, *values) = loop.close([taken * some], after)
        if some % 4:
            end = b.add(b.ptrtoint(entries, LONG), LONG(3))
            entries = b.inttoptr(b.and_(end, LONG(-4)), entries.type)
        return values, entries

    return sums_of


def block_of(sums_of: Callable[..., Any], pixels: int) -> Callable[..., Any]:
    """See skipping.Lists."""

    @inline
    def one(acc: Word, record: Words, y: Pointer, bounds: Words) -> None:
        multiplier, term, down = record
        y[0] = clamp(scaled_twice(acc, multiplier, term, down), bounds[0], bounds[1])

    @inline
    def two(sums: Words, record: Words, target: Tuple, bounds: Words) -> None:
        y, y_step = target
        one(sums[0], record, y, bounds)
        one(sums[1], record, moved(y, y_step), bounds)

    @inline
    def block(window: Tuple, part: Pointer, target: Tuple, bounds: Words) -> Pointer:
        count, bias = word_at(part, i32(0)), word_at(part, i32(4))
        sums, part = sums_of(window, moved(part, i32(HEAD)), count, bias)
        record = word_at(part, i32(0)), word_at(part, i32(4)), word_at(part, i32(8))
        if pixels == 1:
            one(sums[0], record, target[0], bounds)
        else:
            two(sums, record, target, bounds)
        if pixels == 4:
            two(sums[2:], record, (moved(target[0], i32(target[1] * 2)), target[1]), bounds)
        return moved(part, i32(TAIL))

    return block


def _one_by_one(many: int) -> Entries:
    """`many` entries of one weight."""

    def turn(
        b: ir.IRBuilder, x: ir.Value, x_step: ir.Value, entries: ir.Value, sums: Values
    ) -> tuple[ir.Value, Values]:
        for k in range(many):
            weight = b.sext(load(b, entries, 2 * k, BYTE, 1), WORD)
            x = address(b, x, b.zext(load(b, entries, 2 * k + 1, BYTE, 1), WORD), BYTE)
            values = [b.sext(load(b, x, b.mul(x_step, WORD(p)), BYTE, 1), WORD) for p in range(len(sums))]
            sums = [b.add(s, b.mul(value, weight)) for s, value in zip(sums, values)]
        return x, sums

    return turn


def _block(pixels: int) -> Callable[..., Any]:
    return block_of(walk(pixels, 2, ((2, _one_by_one(2)), (1, _one_by_one(1)))), pixels)


PLAIN = Lists(1, each_its_own(neighbours(1)), True, 1, 1, copy, blank, _block)
KERNELS = skipping_kernels("plain", __name__, PLAIN)
globals().update(by_name(KERNELS))  # generated text imports them
