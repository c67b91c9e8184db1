"""The inner blocks of layers whose weights are mostly zeros."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from edgecompress_runtime.families.shared.vectors import splat
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    LONG,
    PAIR,
    PLACE,
    WORD,
    function,
    load,
)
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_blocks import Shape, field, finish
from edgecompress_runtime.families.x86.x86_layout import SkippingCut
from edgecompress_runtime.families.x86.x86_vectors import BIAS, constant, dot, words
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code

LISTS = types.Tuple([INT32_POINTER, INT32_POINTER, INT8_POINTER])


class _Inputs(NamedTuple):
    """What the steps of a block read. x_step: bytes from pixel to pixel, int64."""

    x: ir.Value
    x_step: ir.Value
    places: ir.Value
    w: ir.Value


@cache
def skipping_block(variant: Variant, shape: Shape, cut: SkippingCut) -> Callable[..., Any]:
    """For Numba code: block(source, lists, record, target, bounds).

    source, target, bounds: as in `dot_block`. lists: places, counts, weights, and record: records, order, as in
    `x86_layout.Steps`.
    """

    @llvm_code(types.void(PLACE, LISTS, types.Tuple([INT32_POINTER, INT8_POINTER]), PLACE, PAIR))
    def block(b: ir.IRBuilder, source: Tuple, lists: Tuple, record: Tuple, target: Tuple, bounds: Tuple) -> None:
        (x, x_step), (places, counts, w), (records, order), (y, y_step) = source, lists, record, target
        x_step, y_step = (b.sext(v, LONG) for v in (x_step, y_step))
        inputs, parts = _Inputs(x, x_step, places, w), _first_sums(b, variant, shape, cut, records)
        done, before = LONG(0), LONG(0)  # cells; steps
        for vectors in range(shape.vectors, 0, -1) if cut.sorts else [shape.vectors]:
            steps = b.sext(load(b, counts, 4 * (vectors - 1), WORD), LONG)
            with cgutils.for_range(b, b.sdiv(b.sub(steps, before), LONG(cut.sums))) as turn:
                for k in range(cut.sums):
                    step = b.add(b.mul(turn.index, LONG(cut.sums)), LONG(k))
                    cells = [b.add(b.add(done, b.mul(step, LONG(vectors))), LONG(v)) for v in range(vectors)]
                    at = [b.add(before, step)] if cut.picks else cells
                    _step(b, variant, cut, inputs, at, cells, [[vector[k] for vector in pixel] for pixel in parts])
            done, before = b.add(done, b.mul(b.sub(steps, before), LONG(vectors))), steps
        for first, *others in chain(*parts):
            for other in others:
                b.store(b.add(b.load(first), b.load(other)), first)
        sums = [[vector[0] for vector in pixel] for pixel in parts]
        finish(b, variant, shape, sums, (records, (y, y_step), bounds), order if cut.sorts else None)

    return block


def _first_sums(
    b: ir.IRBuilder, variant: Variant, shape: Shape, cut: SkippingCut, records: ir.Value
) -> list[list[list[ir.Value]]]:
    """Places of vectors, [pixels][vectors][sums]: the biases, and zeros for a vector's further sums."""
    parts = []
    for _ in range(shape.pixels):
        firsts = [field(b, variant, records, v, BIAS) for v in range(shape.vectors)]
        rest = [constant(variant, 0)] * (cut.sums - 1)
        parts.append([[cgutils.alloca_once_value(b, n) for n in (first, *rest)] for first in firsts])
    return parts


def _step(
    b: ir.IRBuilder,
    variant: Variant,
    cut: SkippingCut,
    inputs: _Inputs,
    at: Sequence[ir.Value],
    cells: Sequence[ir.Value],
    sums: Sequence[Sequence[ir.Value]],
) -> None:
    """at: the numbers of its places. cells: of each vector's weights. sums: places, [pixels][vectors]."""
    x, x_step, places, w = inputs
    part, stride = _part(variant), variant.bytes * (2 if cut.picks else 1)
    starts = [b.sext(load(b, places, b.mul(n, LONG(4)), WORD, 4), LONG) for n in at]
    pixels = [b.mul(x_step, LONG(p)) for p in range(len(sums))]
    windows = [_window(b, variant, cut, x, b.add(starts[0], pixel)) for pixel in pixels] if cut.picks else []
    for v, cell in enumerate(cells):
        first = b.mul(cell, LONG(stride))
        chosen = load(b, w, first, part, 4) if cut.picks else None
        weights = load(b, w, b.add(first, LONG(stride - variant.bytes)), words(variant), 4)
        for p, pixel in enumerate(pixels):
            if cut.picks:
                values = b.bitcast(_picked(b, variant, windows[p], chosen), words(variant))
            else:
                values = splat(b, load(b, x, b.add(starts[v], pixel), WORD, 1), variant.lanes)
            b.store(dot(b, variant, b.load(sums[p][v]), values, weights), sums[p][v])


def _part(variant: Variant) -> ir.VectorType:
    return ir.VectorType(BYTE, variant.bytes)


def _window(b: ir.IRBuilder, variant: Variant, cut: SkippingCut, x: ir.Value, at: ir.Value) -> list[ir.Value]:
    """The vectors of inputs that a step picks from."""
    return [load(b, x, b.add(at, LONG(n * variant.bytes)), _part(variant), 1) for n in range(cut.window)]


def _picked(b: ir.IRBuilder, variant: Variant, window: Sequence[ir.Value], chosen: ir.Value) -> ir.Value:
    part = _part(variant)
    if len(window) == 1:
        return b.call(function(b, variant.pick, part, part, part), [*window, chosen])
    return b.call(function(b, variant.pick_of_two, part, part, part, part), [window[0], chosen, window[1]])
