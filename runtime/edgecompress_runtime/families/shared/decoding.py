"""Coded weights (coding.py) -> memory, a part at a time: one function each, that all layers of a program call.

A table has an entry for each value of the next 8 bits: the weight and its code's length. Behind it lies the
position in the stream, so that the next part goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.words import (
    BYTE,
    HALF,
    INT8_POINTER,
    LONG,
    WORD,
    N,
    address,
    load,
    store,
    store_half,
    store_word,
    word_at,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.cross import Function, external
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline, llvm_code

ENTRIES = 256
CODES = 3  # from one word: it has 25 bits from any bit on
UNROLLED = 12  # weights in an iteration
PART = types.void(INT8_POINTER, INT8_POINTER, INT8_POINTER, types.int32, types.int32)


@inline
def _unsigned(byte: Word) -> Word:
    return i32(i32(byte) & i32(255))


@inline
def _filled(code: Pointer, table: Pointer, put: Callable[..., None], entry_bytes: Word) -> Word:
    """The table of a code; returns where its stream starts. put(table, offset, weight, length): an entry."""
    at, word = i32(8), i32(0)
    for length in range(i32(1), i32(9)):
        for _ in range(_unsigned(code[i32(length - 1)])):
            place = word
            while place < i32(ENTRIES):
                put(table, i32(place * entry_bytes), i32(code[at]), length)
                place = i32(place + i32(i32(1) << length))
            # the next code of this length, its first bit lowest: add one from the last bit on
            bit = i32(i32(1) << i32(length - 1))
            while i32(word & bit):
                word = i32(word ^ bit)
                bit = i32(bit >> i32(1))
            word = i32(word | bit)
            at = i32(at + 1)
    return at


@inline
def _put_byte(table: Pointer, offset: Word, weight: Word, length: Word) -> None:
    store_half(table, offset, i32((weight & i32(255)) | (length << i32(8))))


@inline
def _put_half(table: Pointer, offset: Word, weight: Word, length: Word) -> None:
    store_word(table, offset, i32((weight << i32(16)) | length))


def _decoder(entry: ir.Type, unit: int, length: Callable[..., ir.Value], put: Callable[..., None]) -> Any:
    """For Numba code: (stream, position, table, target, count) -> the position after `count` weights.

    entry: type of the table's entries; length(builder, word): of the code, from an entry widened to a word.
    unit: weights that put(builder, target, number of the first, words) stores at a time; count is a multiple of it.
    """
    size = entry.width // 8

    @llvm_code(N(INT8_POINTER, N, INT8_POINTER, INT8_POINTER, N))
    def decode(
        b: ir.IRBuilder, stream: ir.Value, position: ir.Value, table: ir.Value, target: ir.Value, count: ir.Value
    ) -> ir.Value:
        at, shift = address(b, stream, b.lshr(position, WORD(3)), BYTE), b.and_(position, WORD(7))
        for unrolled in (UNROLLED, unit):
            loop = Loop(b, count, [target], [count, at, shift], unrolled)
            count, at, shift = loop.values
            words: list[ir.Value] = []
            for k in range(unrolled):
                if k % CODES == 0:
                    window = load(b, at, 0, WORD, 1)
                index = b.and_(b.lshr(window, shift), WORD(ENTRIES - 1))
                found = load(b, table, b.mul(index, WORD(size)), entry, size)
                words.append(found if entry == WORD else b.zext(found, WORD))
                shift = b.add(shift, length(b, words[-1]))
                if k % CODES == CODES - 1 or k == unrolled - 1:
                    at, shift = address(b, at, b.lshr(shift, WORD(3)), BYTE), b.and_(shift, WORD(7))
                if len(words) == unit:
                    put(b, loop.pointers[0], k + 1 - unit, words)
                    words = []
            after = [b.sub(count, WORD(unrolled)), at, shift]
            (target,), (count, at, shift) = loop.close([unrolled * size // 2], after)
        passed = b.sub(b.ptrtoint(at, LONG), b.ptrtoint(stream, LONG))
        return b.add(b.shl(b.trunc(passed, WORD), WORD(3)), shift)

    return decode


def _put_bytes(b: ir.IRBuilder, target: ir.Value, number: int, words: list[ir.Value]) -> None:
    store(b, b.trunc(words[0], BYTE), target, number, 1)


def _put_halves(b: ir.IRBuilder, target: ir.Value, number: int, words: list[ir.Value]) -> None:
    """Two weights to a word: Arm's PKHTB."""
    for i in range(0, len(words), 2):
        pair = b.or_(b.and_(words[i + 1], WORD(0xFFFF0000)), b.lshr(words[i], WORD(16)))
        store(b, pair, target, 2 * (number + i))


_bytes_from = _decoder(HALF, 1, lambda b, word: b.lshr(word, WORD(8)), _put_bytes)
_halves_from = _decoder(WORD, 4, lambda b, word: b.and_(word, WORD(255)), _put_halves)


BYTE_STATE, HALF_STATE = i32(ENTRIES * 2), i32(ENTRIES * 4)  # where a position lies behind its table


def decode_bytes(code: Pointer, table: Pointer, target: Pointer, count: Word, first: Word) -> None:
    """`count` weights as int8; first: 0 for the first part of a layer."""
    if first == 0:
        store_word(table, BYTE_STATE, i32(_filled(code, table, _put_byte, i32(2)) * i32(8)))
    store_word(table, BYTE_STATE, _bytes_from(code, word_at(table, BYTE_STATE), table, target, count))


def decode_halves(code: Pointer, table: Pointer, target: Pointer, count: Word, first: Word) -> None:
    """The same as int16; count: a multiple of 4."""
    if first == 0:
        store_word(table, HALF_STATE, i32(_filled(code, table, _put_half, i32(4)) * i32(8)))
    store_word(table, HALF_STATE, _halves_from(code, word_at(table, HALF_STATE), table, target, count))


@dataclass(frozen=True)
class Decoder:
    """function: void (code, table, target, count, first). table: bytes of scratch that it keeps."""

    function: Function
    table: int


TO_BYTES = Decoder(Function("edgecompress_decode_bytes", decode_bytes, PART, shared=True), int(BYTE_STATE) + 4)
TO_HALVES = Decoder(Function("edgecompress_decode_halves", decode_halves, PART, shared=True), int(HALF_STATE) + 4)
call_bytes, call_halves = (external(d.function.symbol, PART) for d in (TO_BYTES, TO_HALVES))


@inline
def bank_of_bytes(w: Tuple, bank: Pointer, first: Word, pairs: Word, depth: Word) -> Pointer:
    """Blocks.bank for coded weights, as int8; w: (code, table)."""
    code, table = w
    call_bytes(code, table, bank, i32(pairs * depth * i32(2)), first)
    return bank


@inline
def bank_of_halves(w: Tuple, bank: Pointer, first: Word, pairs: Word, depth: Word) -> Pointer:
    """The same as int16."""
    code, table = w
    call_halves(code, table, bank, i32(pairs * depth * i32(2)), first)
    return bank
