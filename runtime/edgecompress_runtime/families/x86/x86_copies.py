"""Copies the input into the form that the steps of a block read: uint8 (x + 128), or int16 (x - zero point)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from edgecompress_runtime.families.shared.vectors import splat
from edgecompress_runtime.families.shared.words import (
    BYTE,
    HALF,
    INT8_POINTER,
    INT32_POINTER,
    LONG,
    N,
    load,
    moved,
    store,
)
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Word, Words, inline, llvm_code

SOME = 8  # values; vectors of them for what is left of a row


@cache
def _copy_row(variant: Variant, element: int) -> Callable[..., Any]:
    """copy(x, target, count, zero): `count` values, a vector at a time, then some, then one."""

    def converted(b: ir.IRBuilder, value: ir.Value, zero: ir.Value) -> ir.Value:
        vector = isinstance(value.type, ir.VectorType)
        if element == 1:
            return b.xor(value, value.type([0x80] * value.type.count) if vector else BYTE(0x80))
        if vector:
            width = value.type.count
            return b.sub(b.sext(value, ir.VectorType(HALF, width)), splat(b, b.trunc(zero, HALF), width))
        return b.sub(b.sext(value, HALF), b.trunc(zero, HALF))

    @llvm_code(types.void(INT8_POINTER, INT8_POINTER, N, N))
    def copy(b: ir.IRBuilder, x: ir.Value, target: ir.Value, count: ir.Value, zero: ir.Value) -> None:
        count, first = b.sext(count, LONG), LONG(0)
        for size in sorted({variant.bytes // element, SOME, 1}, reverse=True):
            steps = b.sdiv(b.sub(count, first), LONG(size))
            kind = BYTE if size == 1 else ir.VectorType(BYTE, size)
            with cgutils.for_range(b, steps) as loop:
                at = b.add(first, b.mul(loop.index, LONG(size)))
                store(b, converted(b, load(b, x, at, kind, 1), zero), target, b.mul(at, LONG(element)), 1)
            first = b.add(first, b.mul(steps, LONG(size)))

    return copy


@cache
def _blank_row(element: int) -> Callable[..., Any]:
    """blank(target, count, zero): `count` values that stand for the zero point."""

    @llvm_code(types.void(INT8_POINTER, N, N))
    def blank(b: ir.IRBuilder, target: ir.Value, count: ir.Value, zero: ir.Value) -> None:
        value = b.xor(b.trunc(zero, BYTE), BYTE(0x80)) if element == 1 else HALF(0)
        count, first = b.sext(count, LONG), LONG(0)
        for size in (SOME, 1):
            steps = b.sdiv(b.sub(count, first), LONG(size))
            with cgutils.for_range(b, steps) as loop:
                at = b.mul(b.add(first, b.mul(loop.index, LONG(size))), LONG(element))
                store(b, value if size == 1 else splat(b, value, size), target, at, 1)
            first = b.add(first, b.mul(steps, LONG(size)))

    return blank


@llvm_code(INT32_POINTER(INT32_POINTER, N))
def moved_words(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """An int32 pointer, `offset` elements on."""
    return b.gep(pointer, [offset])


@cache
def padded_copy(variant: Variant, element: int) -> Callable[..., Any]:
    """For Numba code: (x, padded, image, size, pads, zero). An image of `image` (height, width, channels) gets into the
    middle of `size` (height, width), the zero point around it."""
    copy, blank = _copy_row(variant, element), _blank_row(element)

    @inline
    def copied(x: Pointer, padded: Pointer, image: Words, size: Words, pads: Words, zero: Word) -> None:
        height, width, channels = image
        inside = min(width, i32(size[1] - pads[1]))
        row_step = i32(size[1] * channels * element)
        if inside == size[1] and inside == width and pads[0] == 0 and size[0] <= height:
            copy(x, padded, i32(size[0] * width * channels), zero)
        else:
            left, right = i32(pads[1] * channels), i32(i32(size[1] - pads[1] - inside) * channels)
            for row in range(size[0]):
                in_y = i32(row - pads[0])
                target = moved(padded, i32(row * row_step))
                if 0 <= in_y < height:
                    blank(target, left, zero)
                    middle = moved(target, i32(left * element))
                    copy(moved(x, i32(in_y * width * channels)), middle, i32(inside * channels), zero)
                    blank(moved(middle, i32(inside * channels * element)), right, zero)
                else:
                    blank(target, i32(size[1] * channels), zero)

    return copied
