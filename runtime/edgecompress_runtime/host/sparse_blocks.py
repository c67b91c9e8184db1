"""The inner blocks of layers whose weights are mostly zeros: one vector of output channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecompress_runtime.host.blocks import Shape, field, finish
from edgecompress_runtime.host.variants import Variant
from edgecompress_runtime.host.vectors import constant, dot, splat, words
from edgecompress_runtime.primitives.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    LONG,
    WORD,
    address,
    function,
    load,
)


@cache
def sparse_block(variant: Variant, shape: Shape, sums_each: int) -> Callable[..., Any]:
    """block(x, x_step, places, steps, w, records, y, y_step, low, high): one vector of channels.

    places: for each step the bytes from a pixel's window to the word that it takes. sums_each: of a pixel, taken in
    turn by `sums_each` steps that follow one another.
    """
    lanes, words_ = variant.lanes, words(variant)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, x_step, places, steps, w, records, y, y_step, low, high = args
        x_step, steps, y_step = (b.sext(v, LONG) for v in (x_step, steps, y_step))
        bias = field(b, variant, records, 0, 0)
        parts = [[cgutils.alloca_once_value(b, constant(variant, 0) if k else bias) for k in range(sums_each)]
                 for _ in range(shape.pixels)]  # fmt: skip
        with cgutils.for_range(b, b.sdiv(steps, LONG(sums_each))) as turn:
            for k in range(sums_each):
                step = b.add(b.mul(turn.index, LONG(sums_each)), LONG(k))
                place = b.sext(load(b, places, b.mul(step, LONG(4)), WORD, 4), LONG)
                weights = load(b, w, b.mul(step, LONG(variant.bytes)), words_, 4)
                for p, pixel in enumerate(parts):
                    values = splat(b, load(b, x, b.add(place, b.mul(x_step, LONG(p))), WORD, 1), lanes)
                    b.store(dot(b, variant, b.load(pixel[k]), values, weights), pixel[k])
        for pixel in parts:
            for other in pixel[1:]:
                b.store(b.add(b.load(pixel[0]), b.load(other)), pixel[0])
        finish(b, variant, shape, parts, (records, y, y_step, low, high))
        return context.get_dummy_value()

    @intrinsic
    def block(typingctx, x, x_step, places, steps, w, records, y, y_step, low, high):
        n, data, table = types.int32, INT8_POINTER, INT32_POINTER
        return types.void(data, n, table, n, data, table, data, n, n, n), generate

    return block


@cache
def expanding_block(variant: Variant, shape: Shape, sums_each: int) -> Callable[..., Any]:
    """block(x, masks, steps, w, records, y, low, high): one vector of channels of one pixel, of weights that lie in
    memory without their zeros. masks: of each step, where its weights belong."""
    lanes, words_ = variant.lanes, words(variant)
    part, bits = ir.VectorType(BYTE, variant.bytes), ir.VectorType(ir.IntType(1), variant.bytes)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, masks, steps, w, records, y, low, high = args
        expand = function(b, f"llvm.masked.expandload.v{variant.bytes}i8", part, BYTE.as_pointer(), bits, part)
        count = function(b, "llvm.ctpop.i64", LONG, LONG)
        bias = field(b, variant, records, 0, 0)
        parts = [cgutils.alloca_once_value(b, constant(variant, 0) if k else bias) for k in range(sums_each)]
        taken = cgutils.alloca_once_value(b, LONG(0))
        with cgutils.for_range(b, b.sdiv(b.sext(steps, LONG), LONG(sums_each))) as turn:
            for k, total in enumerate(parts):
                step = b.add(b.mul(turn.index, LONG(sums_each)), LONG(k))
                mask, start = load(b, masks, b.mul(step, LONG(8)), LONG, 4), b.load(taken)
                weights = b.call(expand, [address(b, w, start, BYTE), b.bitcast(mask, bits), part([0] * variant.bytes)])
                b.store(b.add(start, b.call(count, [mask])), taken)
                values = splat(b, load(b, x, b.mul(step, LONG(4)), WORD, 1), lanes)
                b.store(dot(b, variant, b.load(total), values, b.bitcast(weights, words_)), total)
        for other in parts[1:]:
            b.store(b.add(b.load(parts[0]), b.load(other)), parts[0])
        finish(b, variant, shape, [[parts[0]]], (records, y, LONG(0), low, high))
        return context.get_dummy_value()

    @intrinsic
    def block(typingctx, x, masks, steps, w, records, y, low, high):
        n = types.int32
        return types.void(INT8_POINTER, INT32_POINTER, n, INT8_POINTER, INT32_POINTER, INT8_POINTER, n, n), generate

    return block
