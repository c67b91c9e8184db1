"""The inner blocks of layers whose weights are mostly zeros."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import chain, product
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
    """block(x, x_step, places, cells, w, records, y, y_step, low, high).

    cells: steps of its vectors, in the order of `layout.Steps`. sums_each: of a pixel and vector, taken in turn by
    `sums_each` steps that follow one another. picks: a step takes a vector instead of a word, of which it picks a word
    for each channel; which bytes, stands in front of its weights.
    """
    lanes, words_ = variant.lanes, words(variant)
    stride, part = variant.bytes * (2 if picks else 1), ir.VectorType(BYTE, variant.bytes)
    turn_cells = sums_each * shape.vectors

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, x_step, places, cells, w, records, y, y_step, low, high = args
        x_step, cells, y_step = (b.sext(v, LONG) for v in (x_step, cells, y_step))
        starts = [[field(b, variant, records, v, BIAS)] + [constant(variant, 0)] * (sums_each - 1)
                  for v in range(shape.vectors)]  # fmt: skip
        parts = [[[cgutils.alloca_once_value(b, value) for value in vector] for vector in starts]
                 for _ in range(shape.pixels)]  # fmt: skip
        with cgutils.for_range(b, b.sdiv(cells, LONG(turn_cells))) as turn:
            for k, v in product(range(sums_each), range(shape.vectors)):
                cell = b.add(b.mul(turn.index, LONG(turn_cells)), LONG(k * shape.vectors + v))
                place = b.sext(load(b, places, b.mul(cell, LONG(4)), WORD, 4), LONG)
                at = b.mul(cell, LONG(stride))
                chosen = load(b, w, at, part, 4) if picks else None
                weights = load(b, w, b.add(at, LONG(stride - variant.bytes)), words_, 4)
                for p, pixel in enumerate(parts):
                    start = b.add(place, b.mul(x_step, LONG(p)))
                    if picks:
                        pick = function(b, variant.pick, part, part, part)
                        values = b.bitcast(b.call(pick, [load(b, x, start, part, 1), chosen]), words_)
                    else:
                        values = splat(b, load(b, x, start, WORD, 1), lanes)
                    b.store(dot(b, variant, b.load(pixel[v][k]), values, weights), pixel[v][k])
        for first, *others in chain(*parts):
            for other in others:
                b.store(b.add(b.load(first), b.load(other)), first)
        sums = [[vector[0] for vector in pixel] for pixel in parts]
        finish(b, variant, shape, sums, (records, y, y_step, low, high))
        return context.get_dummy_value()

    @intrinsic
    def block(typingctx, x, x_step, places, cells, w, records, y, y_step, low, high):
        n, data, table = types.int32, INT8_POINTER, INT32_POINTER
        return types.void(data, n, table, n, data, table, data, n, n, n), generate

    return block
