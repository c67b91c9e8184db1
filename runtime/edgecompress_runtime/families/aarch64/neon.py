"""64-bit Arm: NEON's vectors of 16 bytes, with or without its dot product (SDOT, Armv8.2 and later).

SDOT adds four products of int8 to each of four int32 lanes. Without it SMULL and SMLAL2 add two products in each of
eight int16 lanes, which needs weights of -127 or more, and SADALP adds those in pairs to int32 lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.vectors import BYTES, LANES, vector
from edgecompress_runtime.families.shared.words import BYTE, HALF, INT8_POINTER, WORD, N, function, load, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Word, inline, llvm_code

EIGHT_BYTES, HALVES, FOUR_HALVES = ir.VectorType(BYTE, 8), ir.VectorType(HALF, 8), ir.VectorType(HALF, 4)
LEAST = -127  # of a weight, for two products to fit int16


def dot(b: ir.IRBuilder, has_dot: bool, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + products of 16 bytes, spread over the four lanes."""
    if has_dot:
        return b.call(function(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", LANES, LANES, BYTES, BYTES), [acc, x, w])
    multiply = function(b, "llvm.aarch64.neon.smull.v8i16", HALVES, EIGHT_BYTES, EIGHT_BYTES)
    pair_up = function(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", LANES, HALVES)
    low, high = (b.call(multiply, [half(b, x, k), half(b, w, k)]) for k in (0, 1))
    return b.add(acc, b.call(pair_up, [b.add(low, high)]))


def half(b: ir.IRBuilder, v: ir.Value, upper: int) -> ir.Value:
    """One half of a vector."""
    count = v.type.count // 2
    picked = ir.VectorType(WORD, count)(list(range(upper * count, upper * count + count)))
    return b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), picked)


def _joined(b: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    count = 2 * low.type.count
    return b.shuffle_vector(low, high, ir.VectorType(WORD, count)(list(range(count))))


def totals(b: ir.IRBuilder, sums: Sequence[ir.Value]) -> ir.Value:
    """The sums of the lanes of four vectors."""
    pair_up = function(b, "llvm.aarch64.neon.addp.v4i32", LANES, LANES, LANES)
    return b.call(pair_up, [b.call(pair_up, sums[:2]), b.call(pair_up, sums[2:])])


def high_product(b: ir.IRBuilder, x: ir.Value, m: ir.Value) -> ir.Value:
    """(2 * x * m + 2**31) >> 32"""
    return b.call(function(b, "llvm.aarch64.neon.sqrdmulh.v4i32", LANES, LANES, LANES), [x, m])


def shifted(b: ir.IRBuilder, x: ir.Value, up: ir.Value) -> ir.Value:
    """x << up; negative numbers shift down."""
    return b.call(function(b, "llvm.aarch64.neon.sshl.v4i32", LANES, LANES, LANES), [x, up])


def scaled_twice(b: ir.IRBuilder, acc: ir.Value, multiplier: ir.Value, term: ir.Value, up: ir.Value) -> ir.Value:
    """scaling.scaled_twice of four lanes; up: -down."""
    rounding = b.add(term, b.ashr(acc, vector(b, [WORD(31)] * 4)))
    return shifted(b, b.add(high_product(b, acc, multiplier), rounding), up)


def narrowed(b: ir.IRBuilder, values: Sequence[ir.Value], bounds: Sequence[ir.Value]) -> ir.Value:
    """Four vectors of lanes -> their 16 values, clamped, as bytes."""
    to_halves = function(b, "llvm.aarch64.neon.sqxtn.v4i16", FOUR_HALVES, LANES)
    to_bytes = function(b, "llvm.aarch64.neon.sqxtn.v8i8", EIGHT_BYTES, HALVES)
    halves = [b.call(to_halves, [v]) for v in values]
    eights = [b.call(to_bytes, [_joined(b, *halves[i : i + 2])]) for i in (0, 2)]
    result = _joined(b, *eights)
    for name, bound in zip(("llvm.smax.v16i8", "llvm.smin.v16i8"), bounds):
        whole = _splat(b, b.trunc(bound, BYTE), BYTES)
        result = b.call(function(b, name, BYTES, BYTES, BYTES), [result, whole])
    return result


def _splat(b: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, value, WORD(0))
    return b.shuffle_vector(first, undefined, ir.VectorType(WORD, kind.count)([0] * kind.count))


def _part_copy(size: int) -> Callable[..., Any]:
    """For Numba code: (source, target, offset), `size` bytes."""

    @llvm_code(types.void(INT8_POINTER, INT8_POINTER, N))
    def copy(b: ir.IRBuilder, source: ir.Value, target: ir.Value, offset: ir.Value) -> None:
        store(b, load(b, source, offset, ir.VectorType(BYTE, size), 1), target, offset, 1)

    return copy


_copy_16, _copy_8, _copy_4 = (_part_copy(size) for size in (16, 8, 4))


@inline
def copy(source: Pointer, target: Pointer, n: Word) -> None:
    """n bytes; the last ones twice where n is no multiple of a vector."""
    if n >= i32(16):
        for c in range(i32(0), i32(n - i32(15)), i32(16)):
            _copy_16(source, target, c)
        if n % i32(16):
            _copy_16(source, target, i32(n - i32(16)))
    elif n >= i32(8):
        _copy_8(source, target, i32(0))
        _copy_8(source, target, i32(n - i32(8)))
    elif n >= i32(4):
        _copy_4(source, target, i32(0))
        _copy_4(source, target, i32(n - i32(4)))
    else:
        for c in range(n):
            target[c] = source[c]


@llvm_code(types.void(INT8_POINTER, N, N))
def _fill_16(b: ir.IRBuilder, target: ir.Value, offset: ir.Value, value: ir.Value) -> None:
    store(b, _splat(b, b.trunc(value, BYTE), BYTES), target, offset, 1)


@inline
def blank(target: Pointer, n: Word, zero: Word) -> None:
    """n bytes that are `zero`."""
    whole = i32(n - n % i32(16))
    for c in range(i32(0), whole, i32(16)):
        _fill_16(target, c, zero)
    for c in range(whole, n):
        target[c] = zero
