"""The inner blocks of layers whose weights are mostly zeros."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, INT32_POINTER, LONG, WORD, function, load
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_blocks import Shape, field, finish
from edgecompress_runtime.families.x86.x86_layout import SparseCut
from edgecompress_runtime.families.x86.x86_vectors import BIAS, constant, dot, splat, words


@cache
def sparse_block(variant: Variant, shape: Shape, cut: SparseCut) -> Callable[..., Any]:
    """block(x, x_step, places, counts, w, records, order, y, y_step, low, high).

    places, counts, w, order: of `layout.Steps`.
    """
    lanes, words_ = variant.lanes, words(variant)
    stride, part = variant.bytes * (2 if cut.picks else 1), ir.VectorType(BYTE, variant.bytes)

    def window_of(b: Any, x: Any, at: Any) -> list[Any]:
        return [load(b, x, b.add(at, LONG(n * variant.bytes)), part, 1) for n in range(cut.window)]

    def picked(b: Any, window: list[Any], chosen: Any) -> Any:
        if cut.window == 1:
            return b.call(function(b, variant.pick, part, part, part), [*window, chosen])
        return b.call(function(b, variant.pick_of_two, part, part, part, part), [window[0], chosen, window[1]])

    def step_of(b: Any, x: Any, x_step: Any, places: Any, w: Any, at: list[Any], cells: list[Any], sums: Any) -> None:
        """at: the numbers of its places."""
        starts = [b.sext(load(b, places, b.mul(n, LONG(4)), WORD, 4), LONG) for n in at]
        pixels = [b.mul(x_step, LONG(p)) for p in range(shape.pixels)]
        if cut.picks:
            inputs = [window_of(b, x, b.add(starts[0], pixel)) for pixel in pixels]
        for v, cell in enumerate(cells):
            first = b.mul(cell, LONG(stride))
            chosen = load(b, w, first, part, 4) if cut.picks else None
            weights = load(b, w, b.add(first, LONG(stride - variant.bytes)), words_, 4)
            for p, pixel in enumerate(pixels):
                if cut.picks:
                    values = b.bitcast(picked(b, inputs[p], chosen), words_)
                else:
                    values = splat(b, load(b, x, b.add(starts[v], pixel), WORD, 1), lanes)
                b.store(dot(b, variant, b.load(sums[p][v]), values, weights), sums[p][v])

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, x_step, places, counts, w, records, order, y, y_step, low, high = args
        x_step, y_step = (b.sext(v, LONG) for v in (x_step, y_step))
        parts = []
        for _ in range(shape.pixels):
            firsts = [field(b, variant, records, v, BIAS) for v in range(shape.vectors)]
            rest = [constant(variant, 0)] * (cut.sums - 1)
            parts.append([[cgutils.alloca_once_value(b, n) for n in (first, *rest)] for first in firsts])
        done, before = LONG(0), LONG(0)  # cells; steps
        for vectors in range(shape.vectors, 0, -1) if cut.sorts else [shape.vectors]:
            steps = b.sext(load(b, counts, 4 * (vectors - 1), WORD), LONG)
            with cgutils.for_range(b, b.sdiv(b.sub(steps, before), LONG(cut.sums))) as turn:
                for k in range(cut.sums):
                    step = b.add(b.mul(turn.index, LONG(cut.sums)), LONG(k))
                    cells = [b.add(b.add(done, b.mul(step, LONG(vectors))), LONG(v)) for v in range(vectors)]
                    step_of(
                        b,
                        x,
                        x_step,
                        places,
                        w,
                        [b.add(before, step)] if cut.picks else cells,
                        cells,
                        [[vector[k] for vector in pixel] for pixel in parts],
                    )
            done, before = b.add(done, b.mul(b.sub(steps, before), LONG(vectors))), steps
        for first, *others in chain(*parts):
            for other in others:
                b.store(b.add(b.load(first), b.load(other)), first)
        sums = [[vector[0] for vector in pixel] for pixel in parts]
        finish(b, variant, shape, sums, (records, y, y_step, low, high), order if cut.sorts else None)
        return context.get_dummy_value()

    @intrinsic
    def block(typingctx, x, x_step, places, counts, w, records, order, y, y_step, low, high):
        n, data, table = types.int32, INT8_POINTER, INT32_POINTER
        return types.void(data, n, table, table, data, table, data, data, n, n, n), generate

    return block
