"""CONV_2D and FULLY_CONNECTED without products, for weights that are all -1 or 1, or all -1, 0 or 1.

The inputs of a window are cut into groups of a few values. For each group a table in scratch memory holds the sums that
any weights of these values give, and each output channel looks its sum up: a load and an addition for the whole group
(T-MAC, Wei et al. 2024, arXiv:2407.00088; DeepGEMM, Ganji et al. 2023, arXiv:2304.09049). An entry holds the sums of
four pixels, each in 16 bits, so that one look-up serves them all. Where a row has fewer pixels, an entry is the sum of
one, and four channels look up at a time.

A code of four weights that are -1 or 1 is four bits, 1 for 1: its entry is the sum of the inputs whose bit is 1, and
the weighted sum is twice that, less the sum of all. A code of three weights that are -1, 0 or 1 is three digits of base
3 in five bits: 0, 1, and 2 for -1. So the entry of code 0 is zero, and words of codes may end with any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.plain_blocks import blank
from edgecompress_runtime.families.shared.plain_dense import store_four
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.strip import strip_of
from edgecompress_runtime.families.shared.words import (
    BYTE,
    FOUR,
    HALF,
    INT8_POINTER,
    LONG,
    WORD,
    N,
    address,
    kept,
    load,
    load_pair,
    moved,
    store,
    store_word,
    word_at,
)
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline, llvm_code

ALIGNED = 4  # a column's values are a multiple of it
Values = list[ir.Value]


@dataclass(frozen=True)
class Code:
    """A code of `group` weights, in `bits` bits. order: Gray order of the digits of all weights but the last."""

    name: str
    group: int
    bits: int
    order: tuple[tuple[int, ...], ...]

    @property
    def base(self) -> int:
        """How many values a weight has."""
        return 2 if self.group == 4 else 3

    @property
    def entries(self) -> int:
        """Of a group's table."""
        return self.base**self.group

    @property
    def codes(self) -> int:
        """Of a half word."""
        return 16 // self.bits

    def number(self, digits: tuple[int, ...]) -> int:
        """The code of digits 0, 1 and, where there are three, -1."""
        return sum(digit % self.base * self.base**place for place, digit in enumerate(digits))

    def halves(self, weights: np.ndarray, *, even: bool) -> np.ndarray:
        """int8 [..., places] -> uint16 [..., half words], the first code lowest. even: fill words."""
        digits = (weights > 0).astype(np.int64) + (2 * (weights < 0) if self.base == 3 else 0)
        whole = self.group * self.codes * (2 if even else 1)
        digits = np.pad(digits, [(0, 0)] * (weights.ndim - 1) + [(0, -weights.shape[-1] % whole)])
        codes = digits.reshape(-1, self.codes, self.group) @ self.base ** np.arange(self.group)
        halves = codes @ (1 << (self.bits * np.arange(self.codes)))
        return halves.astype(np.uint16).reshape(*weights.shape[:-1], -1)


BINARY = Code("binary", 4, 4, ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 0, 1), (0, 0, 1)))
TERNARY = Code("ternary", 3, 5, ((0, 0), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)))


def _sums(b: ir.IRBuilder, code: Code, inputs: Values) -> Iterator[tuple[int, ir.Value]]:
    """(entry, its sum) of a group's inputs, but of the entry 0."""

    def stepped(total: ir.Value | None, sign: int, value: ir.Value) -> ir.Value:
        if total is None:
            return value if sign > 0 else b.neg(value)
        return b.add(total, value) if sign > 0 else b.sub(total, value)

    total: ir.Value | None = None
    before = code.order[0]
    for digits in code.order:
        for old, new, value in zip(before, digits, inputs):
            if old != new:
                total = stepped(total, new - old, value)
        if total is not None:
            yield code.number(digits), total
        for last in (1, -1)[: code.base - 1]:
            yield code.number((*digits, last)), stepped(total, last, inputs[-1])
        before = digits


@dataclass(frozen=True)
class Tables:
    """How a kernel fills tables and looks up sums: of `pixels` pixels and `channels` channels at a time, four sums.

    They are `found` in words: two pixels in each, or one of each channel.
    """

    code: Code
    pixels: int

    @property
    def channels(self) -> int:
        """Of a block."""
        return 4 // self.pixels

    @property
    def lanes(self) -> int:
        """Words of an entry."""
        return -(-self.pixels // 2)

    @property
    def found(self) -> types.Type:
        """Of the words that sums are found in."""
        return types.UniTuple(N, self.lanes * self.channels)

    @property
    def entry(self) -> int:
        """Bytes."""
        return 2 * self.pixels

    @property
    def table(self) -> int:
        """Bytes of a group's."""
        return self.entry * self.code.entries

    @property
    def half(self) -> int:
        """Bytes of the tables of a half word of codes."""
        return self.code.codes * self.table

    @cached_property
    def fill(self) -> Callable[..., Any]:
        """For Numba code: (inputs, tables, groups, totals). inputs: where the first pixel's start, and how many bytes
        on those of each lie. totals: where the words with the sums of all inputs go."""
        code, element = self.code, HALF if self.pixels == 1 else WORD

        @llvm_code(types.void(_inputs_of(self.pixels), INT8_POINTER, N, INT8_POINTER))
        def filled(b: ir.IRBuilder, inputs: Tuple, tables: ir.Value, groups: ir.Value, target: ir.Value) -> None:
            start, places = inputs
            loop = Loop(b, groups, [start, tables], [WORD(0)] * self.lanes)
            totals, (x, table) = list(loop.values), loop.pointers
            for lane in range(self.lanes):
                for number, value in _sums(b, code, self._inputs(b, x, places[2 * lane : 2 * lane + 2])):
                    size = element.width // 8
                    store(b, b.trunc(value, element), table, number * self.entry + lane * size, size)
                    if code.base == 2 and number == code.entries - 1:
                        totals[lane] = b.add(totals[lane], value)
                x = kept(b, x)
            _, totals = loop.close([code.group, self.table], totals)
            for lane, total in enumerate(totals if code.base == 2 else []):
                store(b, total, target, 4 * lane)

        return filled

    def _inputs(self, b: ir.IRBuilder, x: ir.Value, places: Sequence[ir.Value]) -> Values:
        """The inputs of a group: of a pixel, or of two in a word."""
        starts = [address(b, x, place, BYTE) for place in places]
        values = [[b.sext(load(b, at, n, BYTE, 1), WORD) for at in starts] for n in range(self.code.group)]
        return [b.add(v[0], b.shl(v[1], WORD(16))) if len(v) > 1 else v[0] for v in values]

    @cached_property
    def look_up(self) -> Callable[..., Any]:
        """For Numba code: (tables, codes, halves, found) -> found, with the sums of so many half words added. codes: of
        each channel, whose words and, at last, half words come by turns."""

        @llvm_code(self.found(INT8_POINTER, INT8_POINTER, N, self.found))
        def looked_up(b: ir.IRBuilder, tables: ir.Value, codes: ir.Value, halves: ir.Value, found: Tuple) -> Values:
            pointers, sums = [tables, codes], list(found)
            for count, many in ((b.udiv(halves, WORD(2)), 2), (b.urem(halves, WORD(2)), 1)):
                loop = Loop(b, count, pointers, sums)
                kind = ir.IntType(16 * many)
                words = [load(b, loop.pointers[1], 2 * many * o, kind, 2) for o in range(self.channels)]
                sums = self._looked_up(b, loop.pointers[0], [b.zext(w, WORD) for w in words], many, list(loop.values))
                pointers, sums = loop.close([many * self.half, 2 * many * self.channels], sums)
            return sums

        return looked_up

    def _looked_up(self, b: ir.IRBuilder, table: ir.Value, words: Values, halves: int, found: Values) -> Values:
        table, code = kept(b, table), self.code
        for half, k in product(range(halves), range(code.codes)):
            for o, word in enumerate(words):
                number = b.and_(b.lshr(word, WORD(16 * half + code.bits * k)), WORD(2**code.bits - 1))
                at = address(b, table, b.mul(number, WORD(self.entry)), BYTE)
                if self.pixels == 4:
                    pair = load_pair(b, at, (half * code.codes + k) * self.table)
                    found = [b.add(f, v) for f, v in zip(found, pair)]
                else:
                    found[o] = b.add(found[o], b.sext(load(b, at, 0, HALF, 2), WORD))
            if self.pixels == 1:
                table = kept(b, address(b, table, self.table, BYTE))
        return found

    @cached_property
    def weighted(self) -> Callable[..., Any]:
        """For Numba code: (sums, found, totals) -> the four sums with what was found."""

        @llvm_code(FOUR(FOUR, self.found, FOUR))
        def added(b: ir.IRBuilder, sums: Tuple, found: Tuple, totals: Tuple) -> Values:
            values = _apart(b, found) if self.pixels == 4 else found
            if self.code.base == 3:
                return [b.add(s, v) for s, v in zip(sums, values)]
            return [b.add(b.sub(s, t), b.shl(v, WORD(1))) for s, v, t in zip(sums, values, totals)]

        return added

    @cached_property
    def total(self) -> Callable[..., Any]:
        """For Numba code: (totals of `fill`, columns) -> for each of the four sums, that of all inputs."""

        @llvm_code(FOUR(INT8_POINTER, N))
        def summed(b: ir.IRBuilder, totals: ir.Value, columns: ir.Value) -> Values:
            if self.code.base == 3:
                return [WORD(0)] * 4
            loop = Loop(b, columns, [totals], [WORD(0)] * self.pixels)
            words = [load(b, loop.pointers[0], 4 * lane, WORD) for lane in range(self.lanes)]
            values = _apart(b, words) if self.pixels == 4 else words
            _, sums = loop.close([4 * self.lanes], [b.add(s, v) for s, v in zip(loop.values, values)])
            return sums * self.channels

        return summed


def _inputs_of(pixels: int) -> types.Type:
    """The first pixel's address, and the places of all."""
    return types.Tuple([INT8_POINTER, types.UniTuple(N, pixels)])


def _apart(b: ir.IRBuilder, words: Sequence[ir.Value]) -> Values:
    """The two sums of each word, of which the lower may have taken one from the upper."""
    sixteen, half = WORD(16), WORD(1 << 15)
    return [v for w in words for v in (b.ashr(b.shl(w, sixteen), sixteen), b.ashr(b.add(w, half), sixteen))]


@inline
def _biases_of_one(records: Pointer, number: Word) -> Words:
    bias = records[i32(number * 4)]
    return bias, bias, bias, bias


@inline
def _biases_of_four(records: Pointer, number: Word) -> Words:
    r = i32(number * 16)
    return records[r], records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]


@inline
def _store_pixels(sums: Words, record: Tuple, target: Tuple, bounds: Words) -> None:
    """One channel of four pixels, requantized; records as `channel_records` has them."""
    records, r = record[0], i32(record[1] * 4)
    y, places, step = target
    multiplier, term, down = records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]
    y[i32(places[0] * step)] = clamp(scaled_twice(sums[0], multiplier, term, down), bounds[0], bounds[1])
    y[i32(places[1] * step)] = clamp(scaled_twice(sums[1], multiplier, term, down), bounds[0], bounds[1])
    y[i32(places[2] * step)] = clamp(scaled_twice(sums[2], multiplier, term, down), bounds[0], bounds[1])
    y[i32(places[3] * step)] = clamp(scaled_twice(sums[3], multiplier, term, down), bounds[0], bounds[1])


@inline
def _store_channels(sums: Words, record: Tuple, target: Tuple, bounds: Words) -> None:
    """Four channels of a pixel, requantized; records as `four_channel_records` has them."""
    store_four(sums, (record[0], i32(record[1] * 16)), target[0], bounds)


@inline
def _kept(sums: Pointer, number: Word) -> Words:
    at = i32(number * 16)
    return word_at(sums, at), word_at(sums, i32(at + 4)), word_at(sums, i32(at + 8)), word_at(sums, i32(at + 12))


@inline
def _keep(sums: Pointer, number: Word, values: Words) -> None:
    at = i32(number * 16)
    store_word(sums, at, values[0])
    store_word(sums, i32(at + 4), values[1])
    store_word(sums, i32(at + 8), values[2])
    store_word(sums, i32(at + 12), values[3])


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, N))
def _copy_words(b: ir.IRBuilder, source: ir.Value, target: ir.Value, words: ir.Value) -> None:
    loop = Loop(b, words, [source, target], [])
    store(b, load(b, loop.pointers[0], 0, WORD), loop.pointers[1], 0)
    loop.close([4, 4], [])


@llvm_code(N(INT8_POINTER))
def _beyond_a_word(b: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """How many bytes an address lies behind a multiple of 4."""
    return b.trunc(b.and_(b.ptrtoint(pointer, LONG), LONG(3)), WORD)


@inline
def _copy(source: Pointer, target: Pointer, n: Word) -> None:
    """n bytes; by words where there are whole ones, and they start at a multiple of 4."""
    if n % i32(4) == 0 and _beyond_a_word(source) == 0:
        _copy_words(source, target, i32(n // i32(4)))
    else:
        for c in range(n):
            target[c] = source[c]


def _prepared_by(tables: Tables) -> Callable[..., Any]:
    """A function for Numba, inlined: (strip, its bytes that have to be zero, slots, tables in them)."""
    table, entry = tables.table, tables.entry

    @inline
    def prepare(strip: Pointer, zeros: Word, slots: Pointer, number: Word) -> None:
        """The entry 0 of every table is zero, and never filled."""
        blank(strip, zeros, i32(0))
        for n in range(number):
            blank(moved(slots, i32(n * table)), i32(entry), i32(0))

    return prepare


def _columns_by(tables: Tables) -> Callable[..., Any]:
    """A function for Numba, inlined, that fills the slots of columns. inputs: of column 0. columns: the first, and the
    one behind the last. sizes: bytes of a column in the strip, columns of the window, groups, bytes of a slot."""
    fill, lanes = tables.fill, tables.lanes

    @inline
    def fill_columns(inputs: Pointer, offsets: Words, memory: Tuple, columns: Words, sizes: Words) -> None:
        slots, totals = memory
        step, kernel_w, groups, slot = sizes
        for column in range(columns[0], columns[1]):
            number = i32(column % kernel_w)
            start = moved(inputs, i32(column * step)), offsets
            fill(start, moved(slots, i32(number * slot)), groups, moved(totals, i32(number * 4 * lanes)))

    return fill_columns


def _blocks_by(tables: Tables) -> Callable[..., Any]:
    """A function for Numba, inlined, that looks up all blocks of a turn. memory: slots, totals, sums between parts.
    ring: number of the slot of the window's first column, columns, half words of each. ends: whether it is the first
    part, and the last. target: where the first pixel's outputs go, places of all, channels."""
    look_up, total, weighted = tables.look_up, tables.total, tables.weighted
    together, half = tables.channels, tables.half
    biases_of, stored = (_biases_of_one, _store_pixels) if tables.pixels == 4 else (_biases_of_four, _store_channels)
    nothing = _nothing if tables.pixels == 4 else _nothing_four

    @inline
    def found_in(slots: Pointer, codes: Pointer, ring: Words) -> Words:
        """The sums of a block: from the first column's slot to the last slot, then from the first slot on."""
        oldest, kernel_w, count = ring
        found, at, left = nothing(), moved(slots, i32(oldest * count * half)), i32(i32(kernel_w - oldest) * count)
        for _ in range(min(kernel_w, i32(2))):
            found = look_up(at, codes, left, found)
            codes, at, left = moved(codes, i32(left * 2 * together)), slots, i32(oldest * count)
        return found

    @inline
    def look_up_blocks(
        memory: Tuple, codes: Pointer, records: Pointer, ring: Words, ends: Words, target: Tuple, bounds: Words
    ) -> None:
        slots, totals, sums = memory
        y, apart, channels = target
        every = total(totals, ring[1])
        for block in range(i32(i32(channels + together - 1) // i32(together))):
            before = biases_of(records, block) if ends[0] else _kept(sums, block)
            after = weighted(before, found_in(slots, codes, ring), every)
            if ends[1]:
                at = moved(y, min(i32(block * together), i32(channels - together)))
                stored(after, (records, block), (at, apart, channels), bounds)
            else:
                _keep(sums, block, after)
            codes = moved(codes, i32(ring[1] * ring[2] * 2 * together))

    return look_up_blocks


def _kernel(name: str, module: str, tables: Tables) -> Callable[..., None]:
    strip_rows, prepare = strip_of(1, _copy, blank), _prepared_by(tables)
    fill_columns, look_up_blocks = _columns_by(tables), _blocks_by(tables)
    together, group, codes, half = tables.channels, tables.code.group, tables.code.codes, tables.half
    offsets_of = _offsets if tables.pixels == 4 else _no_offset

    def kernel(
        tensors: Tuple, scratch: Tuple, geometry: Tuple, x_zero: Word, bounds: Words, places: Tuple, parts: Words
    ) -> None:
        """tensors: x, codes, records, y. scratch: strip, slots, totals, sums. places: how far the pixels of a turn lie
        apart, and turns of a row. parts: half words of a column's codes, and those of them whose tables are there at a
        time."""
        x, w, records, y = tensors
        strip, slots, totals, sums = scratch
        size, (kernel_h, kernel_w), (out_h, out_w, out_channels), stride, dilation, pads = geometry
        (apart, turns), (halves, some) = places, parts
        step = i32(i32(kernel_h * size[2] + ALIGNED - 1) // i32(ALIGNED) * ALIGNED)
        columns, blocks = (
            i32((out_w - 1) * stride[1] + kernel_w),
            i32(i32(out_channels + together - 1) // i32(together)),
        )
        # what lies behind a column's values counts, too
        zeros = i32(columns * step) if step != kernel_h * size[2] else i32(0)
        prepare(strip, zeros, slots, i32(kernel_w * some * codes))
        offsets = offsets_of(apart, i32(stride[1] * step))
        for out_y in range(out_h):
            top, part = i32(out_y * stride[0] - pads[0]), w
            strip_rows(x, strip, top, (size, kernel_h, dilation), (pads[1], columns, step), x_zero)
            for first in range(i32(0), halves, some):
                count, filled = min(some, i32(halves - first)), i32(0)
                groups = min(i32(count * codes), i32(i32(step + group - 1) // i32(group) - first * codes))
                inputs, sizes = moved(strip, i32(first * codes * group)), (step, kernel_w, groups, i32(count * half))
                ends = first == 0, first + count == halves
                for turn in range(turns):
                    left = i32(turn * stride[1])
                    own = max(filled, left), i32(left + kernel_w)
                    fill_columns(inputs, offsets, (slots, totals), own, sizes)
                    filled = own[1]
                    ring = i32(left % kernel_w), kernel_w, count
                    memory = (slots, totals, moved(sums, i32(turn * blocks * 16)))
                    target = moved(y, i32((out_y * out_w + turn) * out_channels)), apart, out_channels
                    look_up_blocks(memory, part, records, ring, ends, target, bounds)
                part = moved(part, i32(blocks * kernel_w * count * 2 * together))

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@inline
def _offsets(places: Words, size: Word) -> Words:
    """Of pixels at these places, in bytes."""
    return i32(places[0] * size), i32(places[1] * size), i32(places[2] * size), i32(places[3] * size)


@inline
def _no_offset(places: Words, size: Word) -> Words:
    return (i32(0),)


@inline
def _nothing() -> Words:
    return i32(0), i32(0)


@inline
def _nothing_four() -> Words:
    return i32(0), i32(0), i32(0), i32(0)


KERNELS = {
    (code.name, pixels): (Tables(code, pixels), _kernel(f"{code.name}_tables_{pixels}", __name__, Tables(code, pixels)))
    for code in (BINARY, TERNARY)
    for pixels in (4, 1)
}
globals().update({kernel.__name__: kernel for _, kernel in KERNELS.values()})  # generated text imports them
