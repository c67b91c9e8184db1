"""Vectors in LLVM's intermediate representation: products, sums and requantization, for any variant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from edgecompress_runtime.families.shared.vectors import splat, store_part
from edgecompress_runtime.families.shared.words import BYTE, HALF, LONG, WORD, function, load
from edgecompress_runtime.families.x86.real import MAGIC
from edgecompress_runtime.families.x86.variants import AVX2, AVX2_BYTES, Variant
from edgecompress_runtime.families.x86.x86_requantize import RAISED, Rounding

# what `requantized` needs of a vector of channels: each field is a vector of int32. Pairs of channels share a lane of
# 64 bits, whose upper half is the odd one's: multipliers come once more, swapped, and terms are in two vectors
BIAS, MULTIPLIER, SWAPPED, EVEN_TERM, ODD_TERM, DOWN, UP, NUDGE = range(8)
FIELDS = 8
NUMBERS = 7  # `x86_requantize.Fields.numbers`


def words(variant: Variant) -> ir.VectorType:
    """A vector of int32, the variant's lanes."""
    return ir.VectorType(WORD, variant.lanes)


def dot(b: ir.IRBuilder, variant: Variant, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the products of each lane; x and w as vectors of int32 that hold them."""
    whole = words(variant)
    if variant.dot == AVX2_BYTES.dot:
        bytes_, halves = ir.VectorType(BYTE, variant.bytes), ir.VectorType(HALF, 2 * variant.lanes)
        pairs = function(b, variant.dot, halves, bytes_, bytes_)
        fours = function(b, AVX2.dot, whole, halves, halves)
        products = b.call(pairs, [b.bitcast(x, bytes_), b.bitcast(w, bytes_)])
        return b.add(acc, b.call(fours, [products, halves([1] * halves.count)]))
    if variant.products == 4:
        old = llvm.llvm_version_info[0] < 22  # bytes were passed as words
        part = whole if old else ir.VectorType(BYTE, variant.bytes)
        step = function(b, variant.dot, whole, whole, part, part)
        return b.call(step, [acc, b.bitcast(x, part), b.bitcast(w, part)])
    part = ir.VectorType(HALF, 2 * variant.lanes)
    if variant.dot:
        step = function(b, variant.dot, whole, part, part)
        return b.add(acc, b.call(step, [b.bitcast(x, part), b.bitcast(w, part)]))
    sixteen = constant(variant, 16)
    upper = b.mul(b.ashr(x, sixteen), b.ashr(w, sixteen))
    lower = b.mul(*(b.ashr(b.shl(v, sixteen), sixteen) for v in (x, w)))
    return b.add(acc, b.add(upper, lower))


def constant(variant: Variant, value: int) -> ir.Constant:
    """The int32 in every lane."""
    return words(variant)([value] * variant.lanes)


def spread(b: ir.IRBuilder, variant: Variant, numbers: Sequence[ir.Value]) -> list[ir.Value]:
    """Fields that are the same for all lanes, from `x86_requantize.Fields.numbers`."""
    bias, multiplier, low, high, *rest = (splat(b, n, variant.lanes) for n in numbers)
    pairs = words(variant)([n for i in range(0, variant.lanes, 2) for n in (i, variant.lanes + i)])
    term = b.shuffle_vector(low, high, pairs)
    return [bias, multiplier, multiplier, term, term, *rest]


def requantized(
    b: ir.IRBuilder, variant: Variant, acc: ir.Value, fields: list[ir.Value], rounding: Rounding
) -> ir.Value:
    """int32 accumulators, bias included -> stored values, not yet clamped; x86_requantize.py has the arithmetic."""
    if rounding in (Rounding.REAL, Rounding.REAL_TWICE):
        return _real_product(b, variant, acc, fields, rounding)
    if rounding is Rounding.TWICE_UP:
        acc = b.add(b.shl(acc, fields[UP]), constant(variant, RAISED))
    result = _upper_product(b, variant, acc, fields)
    if rounding is not Rounding.FLOOR:
        positive = b.lshr(acc, constant(variant, 30))
        result = b.add(result, b.and_(positive, fields[NUDGE]) if rounding is Rounding.TWICE_UP else positive)
    return b.ashr(result, fields[DOWN])


def _real_product(
    b: ir.IRBuilder, variant: Variant, acc: ir.Value, fields: list[ir.Value], rounding: Rounding
) -> ir.Value:
    floats = ir.VectorType(ir.FloatType(), variant.lanes)
    scale, offset, below = (b.bitcast(fields[number], floats) for number in (MULTIPLIER, UP, NUDGE))
    if rounding is Rounding.REAL_TWICE:
        offset = b.select(b.icmp_signed("<", acc, fields[DOWN]), below, offset)
    fused = function(b, f"llvm.fma.v{variant.lanes}f32", floats, floats, floats, floats)
    result = b.call(fused, [b.sitofp(acc, floats), scale, offset])
    if rounding is Rounding.REAL_TWICE:
        result = b.fadd(result, floats([MAGIC] * variant.lanes))
    bits = int(np.float32(MAGIC).view(np.int32))
    return b.sub(b.bitcast(result, words(variant)), constant(variant, bits))


def _upper_product(b: ir.IRBuilder, variant: Variant, x: ir.Value, fields: list[ir.Value]) -> ir.Value:
    """The upper 32 bits of x * multiplier + term: even lanes and odd lanes apart, as SIMD has it."""
    half = variant.lanes // 2
    wide = ir.VectorType(LONG, half)
    lower = wide([2**32 - 1] * half)
    x, m, swapped, even, odd = (b.bitcast(v, wide) for v in (x, *fields[MULTIPLIER:DOWN]))
    even = b.add(b.mul(b.and_(x, lower), b.and_(m, lower)), even)
    odd = b.add(b.mul(b.lshr(x, wide([32] * half)), b.and_(swapped, lower)), odd)
    picked = [n for i in range(half) for n in (2 * i + 1, variant.lanes + 2 * i + 1)]
    return b.shuffle_vector(b.bitcast(even, words(variant)), b.bitcast(odd, words(variant)), words(variant)(picked))


def clamped(b: ir.IRBuilder, v: ir.Value, bounds: Sequence[ir.Value]) -> ir.Value:
    """No lane less than the first bound or more than the second."""
    lanes, element = v.type.count, v.type.element
    name = f"v{lanes}i{element.width}"
    low, high = (b.trunc(n, element) if element.width < n.type.width else n for n in bounds)
    larger = b.call(function(b, f"llvm.smax.{name}", v.type, v.type, v.type), [v, splat(b, low, lanes)])
    return b.call(function(b, f"llvm.smin.{name}", v.type, v.type, v.type), [larger, splat(b, high, lanes)])


class Piece(NamedTuple):
    """A vector of int32 of which `lanes` are stored as bytes, the `number`th vector of a row."""

    value: ir.Value
    row: int
    number: int
    lanes: int


def store_clamped(
    b: ir.IRBuilder,
    variant: Variant,
    pieces: Iterable[Piece],
    target: tuple[ir.Value, ir.Value],
    bounds: Sequence[ir.Value],
) -> None:
    """target: where row 0 starts, and bytes to the next. Pieces are asked for when their turn comes, so that few have
    to be kept."""
    (y, y_step), left = target, iter(pieces)
    while group := list(islice(left, 4 if variant.pack else 1)):
        apart = variant.narrows and len(_neighbours(group)) > 1
        for some in [[piece] for piece in group] if apart else [group]:
            if len(some) > 1:
                narrow = clamped(b, _straight(b, variant, _packed(b, variant, some)), bounds)
            else:
                narrow = b.trunc(clamped(b, some[0].value, bounds), ir.VectorType(BYTE, variant.lanes))
            start = 0
            for run in _neighbours(some):
                at = b.add(b.mul(y_step, LONG(run[0].row)), LONG(run[0].number * variant.lanes))
                store_part(b, narrow, start, (len(run) - 1) * variant.lanes + run[-1].lanes, y, at)
                start += len(run) * variant.lanes


def _neighbours(group: list[Piece]) -> list[list[Piece]]:
    """Runs of pieces that are stored one behind the other."""
    found = groupby(enumerate(group), lambda place: (place[1].row, place[1].number - place[0]))
    return [[piece for _, piece in run] for _, run in found]


def store_picked(
    b: ir.IRBuilder,
    variant: Variant,
    pieces: Iterable[Piece],
    order: ir.Value,
    target: tuple[ir.Value, ir.Value],
    bounds: Sequence[ir.Value],
) -> None:
    """A row of up to four pieces at a time. order: of each byte of a row where it lies in `_packed`."""
    for row, group in groupby(pieces, lambda piece: piece.row):
        some = list(group)
        whole = clamped(b, _packed(b, variant, some), bounds)
        picked = b.call(function(b, variant.pick, whole.type, whole.type, whole.type), [whole, order])
        count = (len(some) - 1) * variant.lanes + some[-1].lanes
        store_part(b, picked, 0, count, target[0], b.mul(target[1], LONG(row)))


def _packed(b: ir.IRBuilder, variant: Variant, pieces: list[Piece]) -> ir.Value:
    """Up to four vectors of int32 as one of int8, whose every 16 bytes are four of each of them; what does not fit ends
    at the nearest that does."""
    group = [piece.value for piece in pieces]
    group += group[-1:] * (4 - len(group))

    def halved(x: ir.Value, y: ir.Value, kinds: str, element: ir.Type) -> ir.Value:
        kind = ir.VectorType(element, 2 * x.type.count)
        return b.call(function(b, variant.pack.format(kinds), kind, x.type, x.type), [x, y])

    first, second, third, fourth = group
    return halved(halved(first, second, "dw", HALF), halved(third, fourth, "dw", HALF), "wb", BYTE)


def _straight(b: ir.IRBuilder, variant: Variant, packed: ir.Value) -> ir.Value:
    """Its vectors one behind the other."""
    parts = variant.lanes // 4
    order = [4 * part + v for v in range(4) for part in range(parts)]
    words_ = b.bitcast(packed, words(variant))
    return b.bitcast(b.shuffle_vector(words_, words_, words(variant)(order)), packed.type)


def widened(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value, lanes: int, element: ir.Type = WORD) -> ir.Value:
    """int8 values as int32 lanes (or `element`)."""
    return b.sext(load(b, pointer, offset, ir.VectorType(BYTE, lanes), 1), ir.VectorType(element, lanes))
