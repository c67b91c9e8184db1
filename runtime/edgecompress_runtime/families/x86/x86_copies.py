"""The input as steps of a block read it: uint8 (x + 128), or int16 (x - zero point)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.words import BYTE, HALF, INT8_POINTER, INT32_POINTER, LONG, load, moved, store
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_vectors import splat
from edgecompress_runtime.kernels.arithmetic import i32

SOME = 8  # values; vectors of them for what is left of a row


@cache
def copy_row(variant: Variant, element: int) -> Callable[..., Any]:
    """copy(x, target, count, zero): `count` values, a vector at a time, then some, then one."""

    def converted(b: Any, value: Any, zero: Any) -> Any:
        vector = isinstance(value.type, ir.VectorType)
        if element == 1:
            return b.xor(value, value.type([0x80] * value.type.count) if vector else BYTE(0x80))
        if vector:
            width = value.type.count
            return b.sub(b.sext(value, ir.VectorType(HALF, width)), splat(b, b.trunc(zero, HALF), width))
        return b.sub(b.sext(value, HALF), b.trunc(zero, HALF))

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, target, count, zero = args
        count, first = b.sext(count, LONG), LONG(0)
        for size in sorted({variant.bytes // element, SOME, 1}, reverse=True):
            steps = b.sdiv(b.sub(count, first), LONG(size))
            kind = BYTE if size == 1 else ir.VectorType(BYTE, size)
            with cgutils.for_range(b, steps) as loop:
                at = b.add(first, b.mul(loop.index, LONG(size)))
                store(b, converted(b, load(b, x, at, kind, 1), zero), target, b.mul(at, LONG(element)), 1)
            first = b.add(first, b.mul(steps, LONG(size)))
        return context.get_dummy_value()

    @intrinsic
    def copy(typingctx, x, target, count, zero):
        return types.void(INT8_POINTER, INT8_POINTER, types.int32, types.int32), generate

    return copy


@cache
def blank_row(element: int) -> Callable[..., Any]:
    """blank(target, count, zero): `count` values that stand for the zero point."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        target, count, zero = args
        value = b.xor(b.trunc(zero, BYTE), BYTE(0x80)) if element == 1 else HALF(0)
        count, first = b.sext(count, LONG), LONG(0)
        for size in (SOME, 1):
            steps = b.sdiv(b.sub(count, first), LONG(size))
            with cgutils.for_range(b, steps) as loop:
                at = b.mul(b.add(first, b.mul(loop.index, LONG(size))), LONG(element))
                store(b, value if size == 1 else splat(b, value, size), target, at, 1)
            first = b.add(first, b.mul(steps, LONG(size)))
        return context.get_dummy_value()

    @intrinsic
    def blank(typingctx, target, count, zero):
        return types.void(INT8_POINTER, types.int32, types.int32), generate

    return blank


@intrinsic
def moved_words(typingctx, pointer, offset):
    """An int32 pointer, `offset` elements on."""

    def generate(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return INT32_POINTER(INT32_POINTER, types.int32), generate


@cache
def padded_copy(variant: Variant, element: int) -> Callable[..., Any]:
    """An image [height, width, channels] in the middle of `size` (height, width), the zero point around it."""
    copy, blank = copy_row(variant, element), blank_row(element)

    @njit(inline="always")
    def copied(x, padded, image, size, pads, zero):
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
