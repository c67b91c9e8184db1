"""The inner block of convolutions and fully connected layers: some pixels by some vectors of output channels.

Each step takes the same few input values of a pixel for all lanes, and a vector of weights that holds them for
each channel: sums stay in registers, one channel a lane, and end as neighbouring bytes of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, INT32_POINTER, LONG, WORD, load
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_requantize import Rounding
from edgecompress_runtime.families.x86.x86_vectors import (
    BIAS,
    FIELDS,
    Piece,
    dot,
    requantised,
    splat,
    store_clamped,
    store_picked,
    words,
)


@dataclass(frozen=True)
class Shape:
    """pixels, vectors: of a block. tail: channels in its last vector. unroll: steps in a turn of the loop.
    rounding: of `requantised`."""

    pixels: int
    vectors: int
    tail: int
    unroll: int
    rounding: Rounding

    @property
    def label(self) -> str:
        return f"{self.pixels}x{self.vectors}_{self.tail}_{self.unroll}_{self.rounding.value}"


def field(b: Any, variant: Variant, records: Any, vector: int, number: int) -> Any:
    return load(b, records, 4 * variant.lanes * (vector * FIELDS + number), words(variant), 4)


def finish(
    b: Any, variant: Variant, shape: Shape, sums: list[list[Any]], end: tuple[Any, ...], order: Any = None
) -> None:
    """Sums -> stored bytes. end: (records, y, y_step, low, high). order: of `layout.Steps`, a pointer; None where
    channels are in theirs."""
    records, y, y_step, low, high = end

    def pieces() -> Iterator[Piece]:
        fields = [[field(b, variant, records, v, number) for number in range(FIELDS)] for v in range(shape.vectors)]
        by_vector = product(range(shape.vectors), range(shape.pixels))
        for v, p in by_vector if order is not None or shape.pixels >= 4 else sorted(by_vector, key=lambda vp: vp[1]):
            value = requantised(b, variant, b.load(sums[p][v]), fields[v], shape.rounding)
            yield Piece(value, p, v, shape.tail if v == shape.vectors - 1 else variant.lanes)

    if order is None:
        return store_clamped(b, variant, pieces(), y, y_step, low, high)
    pick = load(b, order, LONG(0), ir.VectorType(BYTE, variant.bytes), 1)
    store_picked(b, variant, sorted(pieces(), key=lambda piece: piece.row), pick, y, y_step, low, high)


@cache
def dot_block(variant: Variant, shape: Shape) -> Callable[..., Any]:
    """block(x, x_step, rows, row_step, columns, column_step, turns, w, records, y, y_step, low, high).

    Pixel p's window: `rows` by `columns` runs of turns * unroll words from x + p * x_step on, in steps of bytes.
    """
    lanes, words_ = variant.lanes, words(variant)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, x_step, rows, row_step, columns, column_step, turns, w, records, y, y_step, low, high = args
        x_step, row_step, column_step, y_step = (b.sext(v, LONG) for v in (x_step, row_step, column_step, y_step))
        rows, columns, turns = (b.sext(v, LONG) for v in (rows, columns, turns))

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
                source = b.add(start, b.mul(turn.index, LONG(4 * shape.unroll)))
                weights = b.mul(b.add(b.mul(part, turns), turn.index), LONG(turn_bytes))
                for step in range(shape.unroll):
                    ws = [
                        load(b, w, b.add(weights, LONG(4 * lanes * (step * shape.vectors + v))), words_, 4)
                        for v in range(shape.vectors)
                    ]
                    for p, pixel in enumerate(sums):
                        at = b.add(source, b.add(b.mul(x_step, LONG(p)), LONG(4 * step)))
                        values = splat(b, load(b, x, at, WORD, 1), lanes)
                        for v, total in enumerate(pixel):
                            b.store(dot(b, variant, b.load(total), values, ws[v]), total)
        finish(b, variant, shape, sums, (records, y, y_step, low, high))
        return context.get_dummy_value()

    @intrinsic
    def block(typingctx, x, x_step, rows, row_step, columns, column_step, turns, w, records, y, y_step, low, high):
        n, data = types.int32, INT8_POINTER
        return types.void(data, *[n] * 6, data, INT32_POINTER, data, n, n, n), generate

    return block
