"""Armv8.1-M with Helium (Cortex-M55, M85): VMLADAVA multiplies 16 pairs of int8 and adds them to one register."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.vectors import BYTES, LANES, clamped, splat, vector
from edgecompress_runtime.families.shared.words import (
    BYTE,
    HALF,
    INT8_POINTER,
    PLACE,
    WORD,
    N,
    address,
    function,
    load,
    store,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline, llvm_code

EIGHT = ir.VectorType(HALF, 8)


def dot(b: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the products of 16 bytes."""
    step, zero = function(b, "llvm.arm.mve.vmldava.v16i8", WORD, *[WORD] * 4, BYTES, BYTES), WORD(0)
    return b.call(step, [zero, zero, zero, acc, x, w])


def high_product(b: ir.IRBuilder, x: ir.Value, m: ir.Value) -> ir.Value:
    """(2 * x * m + 2**31) >> 32 of four lanes."""
    return b.call(function(b, "llvm.arm.mve.vqrdmulh.v4i32", LANES, LANES, LANES), [x, m])


def shifted(b: ir.IRBuilder, x: ir.Value, up: ir.Value) -> ir.Value:
    """x << up of four lanes; negative numbers shift down."""
    shift = function(b, "llvm.arm.mve.vshl.vector.v4i32.v4i32", LANES, LANES, LANES, *[WORD] * 3)
    return b.call(shift, [x, up, WORD(0), WORD(0), WORD(0)])


def scaled_twice(b: ir.IRBuilder, acc: ir.Value, multiplier: ir.Value, term: ir.Value, up: ir.Value) -> ir.Value:
    """scaling.scaled_twice of four lanes; up: -down."""
    high = high_product(b, acc, multiplier)
    rounding = b.add(term, b.ashr(high, vector(b, [WORD(31)] * 4)))
    return shifted(b, b.add(high, rounding), up)


def scatter(b: ir.IRBuilder, target: ir.Value, offsets: ir.Value, values: ir.Value, bounds: Tuple) -> None:
    """Four lanes, clamped, as bytes at these offsets."""
    name = "llvm.arm.mve.vstr.scatter.offset.p0.v4i32.v4i32"
    store_each = function(b, name, ir.VoidType(), BYTE.as_pointer(), LANES, LANES, WORD, WORD)
    b.call(store_each, [target, offsets, clamped(b, values, bounds), WORD(8), WORD(0)])


def _scatter_eight(b: ir.IRBuilder, target: ir.Value, offsets: ir.Value, values: ir.Value) -> None:
    """Eight halves as bytes at these offsets."""
    name = "llvm.arm.mve.vstr.scatter.offset.p0.v8i16.v8i16"
    store_each = function(b, name, ir.VoidType(), BYTE.as_pointer(), EIGHT, EIGHT, WORD, WORD)
    b.call(store_each, [target, offsets, values, WORD(8), WORD(0)])


def _eight_places(b: ir.IRBuilder, distance: ir.Value) -> ir.Value:
    return b.mul(EIGHT(list(range(8))), splat(b, b.trunc(distance, HALF), 8))


@llvm_code(types.void(PLACE, N, PLACE, N))
def turned_eight(b: ir.IRBuilder, source: Tuple, count: ir.Value, target: Tuple, distance: ir.Value) -> None:
    """Eight neighbouring bytes, `count` times: each to a row of its own, `distance` bytes from the next, 9,361 at most.
    source, target: where the first are and go, and bytes from one to the next."""
    (x, x_step), (y, y_step), places = source, target, _eight_places(b, distance)
    loop = Loop(b, count, [x, y], [])
    values = b.sext(load(b, loop.pointers[0], 0, ir.VectorType(BYTE, 8), 1), EIGHT)
    _scatter_eight(b, loop.pointers[1], places, values)
    loop.close([x_step, y_step], [])


@llvm_code(types.void(N, N, PLACE, N))
def spread_eight(b: ir.IRBuilder, value: ir.Value, count: ir.Value, target: Tuple, distance: ir.Value) -> None:
    """A byte to where `turned_eight` writes."""
    (y, y_step), places, values = target, _eight_places(b, distance), splat(b, b.trunc(value, HALF), 8)
    loop = Loop(b, count, [y], [])
    _scatter_eight(b, loop.pointers[0], places, values)
    loop.close([y_step], [])


@llvm_code(types.void(INT8_POINTER, N, N))
def fill_vectors(b: ir.IRBuilder, target: ir.Value, count: ir.Value, value: ir.Value) -> None:
    """16 * count bytes."""
    loop = Loop(b, count, [target], [])
    store(b, splat(b, b.trunc(value, BYTE), 16), loop.pointers[0], 0, 1)
    loop.close([16], [])


class ChosenBytes:
    """The first `count` bytes of a vector, of 16 at most."""

    def __init__(self, builder: ir.IRBuilder, count: ir.Value) -> None:
        self.builder, self.mask = builder, ir.VectorType(ir.IntType(1), 16)
        self.chosen = builder.call(function(builder, "llvm.arm.mve.vctp8", self.mask, WORD), [count])

    def load(self, pointer: ir.Value, offset: int) -> ir.Value:
        """With zeros behind them."""
        kind = BYTES.as_pointer()
        masked = function(self.builder, "llvm.masked.load.v16i8.p0", BYTES, kind, WORD, self.mask, BYTES)
        place = address(self.builder, pointer, offset, BYTES)
        return self.builder.call(masked, [place, WORD(1), self.chosen, BYTES([0] * 16)])

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """And nothing behind them."""
        kind, void = BYTES.as_pointer(), ir.VoidType()
        masked = function(self.builder, "llvm.masked.store.v16i8.p0", void, BYTES, kind, WORD, self.mask)
        self.builder.call(masked, [value, address(self.builder, pointer, 0, BYTES), WORD(1), self.chosen])


@llvm_code(types.void(INT8_POINTER, INT8_POINTER, N))
def copy_vectors(b: ir.IRBuilder, source: ir.Value, target: ir.Value, count: ir.Value) -> None:
    """16 * count bytes."""
    loop = Loop(b, count, [source, target], [])
    store(b, load(b, loop.pointers[0], 0, BYTES, 1), loop.pointers[1], 0, 1)
    loop.close([16, 16], [])


@inline
def copy(source: Pointer, target: Pointer, n: Word) -> None:
    """n bytes, as vectors where no byte is left over."""
    if n % i32(16) == 0:
        copy_vectors(source, target, i32(n // i32(16)))
    else:
        for c in range(n):
            target[c] = source[c]
