"""The inner block of convolutions and fully connected layers: some pixels by some vectors of output channels.

Each step takes the same few input values of a pixel for all lanes, and a vector of weights that holds them for
each channel: sums stay in registers, one channel a lane, and end as neighbouring bytes of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

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
    N,
    load,
)
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_requantize import Rounding
from edgecompress_runtime.families.x86.x86_vectors import (
    BIAS,
    FIELDS,
    Piece,
    dot,
    requantized,
    store_clamped,
    store_picked,
    words,
)
from edgecompress_runtime.llvm.typed_numba import Tuple, llvm_code


@dataclass(frozen=True)
class Shape:
    """pixels, vectors: of a block. tail: channels in its last vector. unroll: steps in a turn of the loop.
    rounding: of `requantized`."""

    pixels: int
    vectors: int
    tail: int
    unroll: int
    rounding: Rounding

    @property
    def label(self) -> str:
        """For the names of kernels."""
        return f"{self.pixels}x{self.vectors}_{self.tail}_{self.unroll}_{self.rounding.value}"


def field(b: ir.IRBuilder, variant: Variant, records: ir.Value, vector: int, number: int) -> ir.Value:
    """The `number`th field of a vector of channels."""
    return load(b, records, 4 * variant.lanes * (vector * FIELDS + number), words(variant), 4)


def finish(
    b: ir.IRBuilder, variant: Variant, shape: Shape, sums: Sequence[Sequence[Any]], end: Tuple, order: Any = None
) -> None:
    """Sums -> stored bytes. sums: places of vectors, [pixels][vectors]. end: (records, target, bounds), target: where
    the first pixel's outputs go, and bytes to the next pixel's. order: of `x86_layout.Steps`, a pointer; None where
    channels are in theirs."""
    records, target, bounds = end

    def pieces() -> Iterator[Piece]:
        fields = [[field(b, variant, records, v, number) for number in range(FIELDS)] for v in range(shape.vectors)]
        by_vector = product(range(shape.vectors), range(shape.pixels))
        for v, p in by_vector if order is not None or shape.pixels >= 4 else sorted(by_vector, key=lambda vp: vp[1]):
            value = requantized(b, variant, b.load(sums[p][v]), fields[v], shape.rounding)
            yield Piece(value, p, v, shape.tail if v == shape.vectors - 1 else variant.lanes)

    if order is None:
        return store_clamped(b, variant, pieces(), target, bounds)
    pick = load(b, order, LONG(0), ir.VectorType(BYTE, variant.bytes), 1)
    store_picked(b, variant, sorted(pieces(), key=lambda piece: piece.row), pick, target, bounds)


@cache
def dot_block(variant: Variant, shape: Shape) -> Callable[..., Any]:
    """For Numba code: block(source, window, weights, target, bounds).

    source: x, and bytes from pixel to pixel; target: the same of y. A pixel's window is (rows, bytes from row to row,
    columns, bytes from column to column, turns): rows by columns runs of turns * unroll words. weights: and records.
    """
    lanes, words_ = variant.lanes, words(variant)

    @llvm_code(types.void(PLACE, types.UniTuple(N, 5), types.Tuple([INT8_POINTER, INT32_POINTER]), PLACE, PAIR))
    def block(b: ir.IRBuilder, source: Tuple, window: Tuple, weights: Tuple, target: Tuple, bounds: Tuple) -> None:
        (x, x_step), (w, records), (y, y_step) = source, weights, target
        x_step, y_step = (b.sext(v, LONG) for v in (x_step, y_step))
        rows, row_step, columns, column_step, turns = (b.sext(v, LONG) for v in window)

        sums = [[cgutils.alloca_once(b, words_) for _ in range(shape.vectors)] for _ in range(shape.pixels)]
        for vector in range(shape.vectors):
            bias = field(b, variant, records, vector, BIAS)
            for pixel in sums:
                b.store(bias, pixel[vector])
        turn_bytes = 4 * lanes * shape.vectors * shape.unroll
        with cgutils.for_range(b, rows) as row, cgutils.for_range(b, columns) as column:
            part = b.add(b.mul(row.index, columns), column.index)
            start = b.add(b.mul(row.index, row_step), b.mul(column.index, column_step))
            with cgutils.for_range(b, turns) as turn:
                here = b.add(start, b.mul(turn.index, LONG(4 * shape.unroll)))
                cells = b.mul(b.add(b.mul(part, turns), turn.index), LONG(turn_bytes))
                for step in range(shape.unroll):
                    ws = [
                        load(b, w, b.add(cells, LONG(4 * lanes * (step * shape.vectors + v))), words_, 4)
                        for v in range(shape.vectors)
                    ]
                    for p, pixel in enumerate(sums):
                        at = b.add(here, b.add(b.mul(x_step, LONG(p)), LONG(4 * step)))
                        values = splat(b, load(b, x, at, WORD, 1), lanes)
                        for v, total in enumerate(pixel):
                            b.store(dot(b, variant, b.load(total), values, ws[v]), total)
        finish(b, variant, shape, sums, (records, (y, y_step), bounds))

    return block
