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
from edgecompress_runtime.host.vectors import BIAS, constant, dot, splat, words
from edgecompress_runtime.primitives.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    LONG,
    WORD,
    function,
    load,
)


@cache
def sparse_block(variant: Variant, shape: Shape, sums_each: int, picks: bool) -> Callable[..., Any]:
    """block(x, x_step, places, steps, w, records, y, y_step, low, high): one vector of channels.

    places: for each step the bytes from a pixel's window to the word that it takes. sums_each: of a pixel, taken in
    turn by `sums_each` steps that follow one another. picks: a step takes a vector instead, of which it picks a word
    for each channel; which bytes, stands in front of its weights.
    """
    lanes, words_ = variant.lanes, words(variant)
    stride, part = variant.bytes * (2 if picks else 1), ir.VectorType(BYTE, variant.bytes)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, x_step, places, steps, w, records, y, y_step, low, high = args
        x_step, steps, y_step = (b.sext(v, LONG) for v in (x_step, steps, y_step))
        bias = field(b, variant, records, 0, BIAS)
        parts = [[cgutils.alloca_once_value(b, constant(variant, 0) if k else bias) for k in range(sums_each)]
                 for _ in range(shape.pixels)]  # fmt: skip
        with cgutils.for_range(b, b.sdiv(steps, LONG(sums_each))) as turn:
            for k in range(sums_each):
                step = b.add(b.mul(turn.index, LONG(sums_each)), LONG(k))
                place = b.sext(load(b, places, b.mul(step, LONG(4)), WORD, 4), LONG)
                at = b.mul(step, LONG(stride))
                chosen = load(b, w, at, part, 4) if picks else None
                weights = load(b, w, b.add(at, LONG(stride - variant.bytes)), words_, 4)
                for p, pixel in enumerate(parts):
                    start = b.add(place, b.mul(x_step, LONG(p)))
                    if picks:
                        pick = function(b, variant.pick, part, part, part)
                        values = b.bitcast(b.call(pick, [load(b, x, start, part, 1), chosen]), words_)
                    else:
                        values = splat(b, load(b, x, start, WORD, 1), lanes)
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
