"""Vectors in LLVM's intermediate representation: products, sums and requantisation, for any variant."""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir

from edgecompress_runtime.host.requantise import Rounding
from edgecompress_runtime.host.variants import Variant
from edgecompress_runtime.primitives.words import BYTE, HALF, LONG, WORD, function, load, store

# what `requantised` needs of a channel, each field a vector of a group of channels
BIAS, MULTIPLIER, TERM_LOW, TERM_HIGH, DOWN, UP, NUDGE = range(7)
FIELDS = 7


def words(variant: Variant) -> ir.VectorType:
    return ir.VectorType(WORD, variant.lanes)


def splat(b: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(value.type, lanes)
    first = b.insert_element(ir.Constant(kind, ir.Undefined), value, WORD(0))
    return b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.VectorType(WORD, lanes)([0] * lanes))


def dot(b: ir.IRBuilder, variant: Variant, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the products of each lane; x and w as vectors of int32 that hold them."""
    whole = words(variant)
    if variant.products == 4:
        old = llvm.llvm_version_info[0] < 22  # bytes were passed as words
        part = whole if old else ir.VectorType(BYTE, variant.bytes)
        step = function(b, variant.dot, whole, whole, part, part)
        return b.call(step, [acc, b.bitcast(x, part), b.bitcast(w, part)])
    part = ir.VectorType(HALF, 2 * variant.lanes)
    if variant.dot:
        step = function(b, variant.dot, whole, part, part)
        return b.add(acc, b.call(step, [b.bitcast(x, part), b.bitcast(w, part)]))
    upper, sixteen = lambda v: b.ashr(v, constant(variant, 16)), constant(variant, 16)
    lower = lambda v: b.ashr(b.shl(v, sixteen), sixteen)  # noqa: E731
    return b.add(acc, b.add(b.mul(upper(x), upper(w)), b.mul(lower(x), lower(w))))


def constant(variant: Variant, value: int) -> ir.Constant:
    return words(variant)([value] * variant.lanes)


def upper_product(
    b: ir.IRBuilder, variant: Variant, x: ir.Value, m: ir.Value, term: tuple[ir.Value, ir.Value]
) -> ir.Value:
    """The upper 32 bits of x * m + term: even lanes and odd lanes apart, as SIMD has it. term: of `paired`."""
    half = variant.lanes // 2
    wide = ir.VectorType(LONG, half)
    shift = wide([32] * half)
    x, m = b.bitcast(x, wide), b.bitcast(m, wide)
    even = b.add(b.mul(b.ashr(b.shl(x, shift), shift), b.ashr(b.shl(m, shift), shift)), term[0])
    odd = b.add(b.mul(b.ashr(x, shift), b.ashr(m, shift)), term[1])
    picked = [n for i in range(half) for n in (2 * i + 1, variant.lanes + 2 * i + 1)]
    mask = ir.VectorType(WORD, variant.lanes)(picked)
    return b.shuffle_vector(b.bitcast(even, words(variant)), b.bitcast(odd, words(variant)), mask)


def paired(b: ir.IRBuilder, variant: Variant, low: ir.Value, high: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Numbers of 64 bits from their halves: those of the even lanes and those of the odd ones."""
    wide, lanes = ir.VectorType(LONG, variant.lanes // 2), variant.lanes
    masks = ([n for i in range(first, lanes, 2) for n in (i, lanes + i)] for first in (0, 1))
    even, odd = (b.bitcast(b.shuffle_vector(low, high, words(variant)(mask)), wide) for mask in masks)
    return even, odd


def requantised(
    b: ir.IRBuilder, variant: Variant, acc: ir.Value, fields: list[ir.Value], rounding: Rounding
) -> ir.Value:
    """int32 accumulators -> stored values, not yet clamped; requantise.py has the arithmetic."""
    term = paired(b, variant, fields[TERM_LOW], fields[TERM_HIGH])
    if rounding is Rounding.FLOOR:
        return b.ashr(upper_product(b, variant, acc, fields[MULTIPLIER], term), fields[DOWN])
    sign, plain = b.ashr(acc, constant(variant, 31)), rounding is Rounding.TWICE
    doubled = b.add(acc, acc) if plain else b.shl(acc, fields[UP])
    high = upper_product(b, variant, doubled, fields[MULTIPLIER], term)
    return b.ashr(b.add(high, sign if plain else b.and_(sign, fields[NUDGE])), fields[DOWN])


def clamped(b: ir.IRBuilder, v: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    lanes = v.type.count
    name = f"v{lanes}i{v.type.element.width}"
    larger = b.call(function(b, f"llvm.smax.{name}", v.type, v.type, v.type), [v, splat(b, low, lanes)])
    return b.call(function(b, f"llvm.smin.{name}", v.type, v.type, v.type), [larger, splat(b, high, lanes)])


def store_bytes(b: ir.IRBuilder, v: ir.Value, pointer: ir.Value, offset: ir.Value, count: int) -> None:
    """The first `count` lanes, as bytes."""
    narrow = b.trunc(v, ir.VectorType(BYTE, v.type.count))
    if count == v.type.count:
        return store(b, narrow, pointer, offset, 1)
    at, undefined = 0, ir.Constant(narrow.type, ir.Undefined)
    for size in (8, 4, 2, 1):
        if count - at >= size:
            part = b.shuffle_vector(narrow, undefined, ir.VectorType(WORD, size)(list(range(at, at + size))))
            store(b, part, pointer, b.add(offset, offset.type(at)), 1)
            at += size


def widened(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value, lanes: int, element: ir.Type = WORD) -> ir.Value:
    """int8 values as int32 lanes (or `element`)."""
    return b.sext(load(b, pointer, offset, ir.VectorType(BYTE, lanes), 1), ir.VectorType(element, lanes))
