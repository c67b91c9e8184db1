"""The inner blocks of float32 layers: some pixels by some vectors of output channels.

A lane is one channel, whose sum takes its terms one after the other, each a product that is rounded and then added: so
every result is that of the ordinary kernels, bit for bit. A fused multiply-add would round once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from edgecompress_runtime.families.shared.vectors import splat, store_part
from edgecompress_runtime.families.shared.words import BYTE, LONG, N, load, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Words, inline, llvm_code

FLOAT = ir.FloatType()
FLOAT_POINTER = types.CPointer(types.float32)
FLOATS = types.Tuple([FLOAT_POINTER, N])  # an address, and how many floats on the next one like it lies
BOUNDS = types.UniTuple(types.float32, 2)
WIDTH = 4  # bytes of a float


@dataclass(frozen=True)
class FloatUnit:
    """What a CPU computes floats with. lanes: of a vector. registers: vectors that a block may hold."""

    lanes: int
    registers: int

    @property
    def bytes(self) -> int:
        """Of a vector."""
        return WIDTH * self.lanes


@llvm_code(FLOAT_POINTER(FLOAT_POINTER, N))
def moved_floats(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """A float32 pointer, `offset` elements on."""
    return b.gep(pointer, [offset])


@cache
def float_block(unit: FloatUnit, pixels: int, vectors: int, tail: int, unroll: int) -> Callable[..., Any]:
    """For Numba code: block(source, window, weights, target, bounds).

    source: x, and floats from pixel to pixel; target: the same of y. A pixel's window is (rows, floats from row to row,
    columns, floats from column to column, turns): rows by columns runs of turns * unroll floats. weights: and biases.
    tail: channels in the last vector.
    """
    lanes = unit.lanes
    floats = ir.VectorType(FLOAT, lanes)

    @llvm_code(types.void(FLOATS, types.UniTuple(N, 5), types.UniTuple(FLOAT_POINTER, 2), FLOATS, BOUNDS))
    def block(b: ir.IRBuilder, source: Tuple, window: Tuple, weights: Tuple, target: Tuple, bounds: Tuple) -> None:
        (x, x_step), (w, bias), (y, y_step) = source, weights, target
        x_step, y_step = (b.mul(b.sext(v, LONG), LONG(WIDTH)) for v in (x_step, y_step))
        rows, row_step, columns, column_step, turns = (b.sext(v, LONG) for v in window)
        sums = [[cgutils.alloca_once_value(b, floats(None)) for _ in range(vectors)] for _ in range(pixels)]
        with cgutils.for_range(b, rows) as row, cgutils.for_range(b, columns) as column:
            part = b.add(b.mul(row.index, columns), column.index)
            start = b.add(b.mul(row.index, row_step), b.mul(column.index, column_step))
            with cgutils.for_range(b, turns) as turn:
                here = b.mul(b.add(start, b.mul(turn.index, LONG(unroll))), LONG(WIDTH))
                cells = b.mul(b.add(b.mul(part, turns), turn.index), LONG(WIDTH * lanes * vectors * unroll))
                for step in range(unroll):
                    at = [b.add(cells, LONG(WIDTH * lanes * (step * vectors + v))) for v in range(vectors)]
                    ws = [load(b, w, place, floats, WIDTH) for place in at]
                    for p, pixel in enumerate(sums):
                        place = b.add(here, b.add(b.mul(x_step, LONG(p)), LONG(WIDTH * step)))
                        value = splat(b, load(b, x, place, FLOAT, WIDTH), lanes)
                        for cell, total in zip(ws, pixel):
                            b.store(b.fadd(b.load(total), b.fmul(cell, value)), total)
        for v in range(vectors):
            end = load(b, bias, LONG(WIDTH * lanes * v), floats, WIDTH)
            for p, pixel in enumerate(sums):
                at = b.add(b.mul(y_step, LONG(p)), LONG(WIDTH * lanes * v))
                _store(b, b.fadd(b.load(pixel[v]), end), bounds, y, at, tail if v == vectors - 1 else lanes)

    return block


@cache
def float_taps(unit: FloatUnit, pixels: int, tail: int) -> Callable[..., Any]:
    """For Numba code: block(source, window, weights, target, bounds), `tail` channels of some pixels, each with weights
    of its own. window: (rows, row step, columns, column step, floats from one tap's weights to the next's). The rest:
    as in `float_block`."""
    floats = ir.VectorType(FLOAT, unit.lanes)

    @llvm_code(types.void(FLOATS, types.UniTuple(N, 5), types.UniTuple(FLOAT_POINTER, 2), FLOATS, BOUNDS))
    def block(b: ir.IRBuilder, source: Tuple, window: Tuple, weights: Tuple, target: Tuple, bounds: Tuple) -> None:
        (x, x_step), (w, bias), (y, y_step) = source, weights, target
        x_step, y_step = (b.mul(b.sext(v, LONG), LONG(WIDTH)) for v in (x_step, y_step))
        rows, row_step, columns, column_step, w_step = (b.sext(v, LONG) for v in window)
        sums = [cgutils.alloca_once_value(b, floats(None)) for _ in range(pixels)]
        with cgutils.for_range(b, rows) as row, cgutils.for_range(b, columns) as column:
            tap = b.add(b.mul(row.index, columns), column.index)
            start = b.mul(b.add(b.mul(row.index, row_step), b.mul(column.index, column_step)), LONG(WIDTH))
            cells = load(b, w, b.mul(tap, b.mul(w_step, LONG(WIDTH))), floats, WIDTH)
            for p, total in enumerate(sums):
                values = load(b, x, b.add(start, b.mul(x_step, LONG(p))), floats, WIDTH)
                b.store(b.fadd(b.load(total), b.fmul(cells, values)), total)
        end = load(b, bias, LONG(0), floats, WIDTH)
        for p, total in enumerate(sums):
            _store(b, b.fadd(b.load(total), end), bounds, y, b.mul(y_step, LONG(p)), tail)

    return block


def _store(b: ir.IRBuilder, value: ir.Value, bounds: Sequence[ir.Value], y: ir.Value, at: ir.Value, count: int) -> None:
    """The first `count` lanes, clamped as `arithmetic.clamp` does it: what is no number stays so. at: in bytes."""
    low, high = (splat(b, bound, value.type.count) for bound in bounds)
    value = b.select(b.fcmp_ordered(">", low, value), low, value)
    value = b.select(b.fcmp_ordered("<", high, value), high, value)
    store_part(b, b.bitcast(value, ir.VectorType(BYTE, WIDTH * value.type.count)), 0, WIDTH * count, y, at)


@cache
def padded_floats(unit: FloatUnit) -> Callable[..., Any]:
    """For Numba code: (x, padded, image, size, pads). An image of `image` (height, width, channels) gets into the
    middle of `size` (height, width), zeros around it."""

    @llvm_code(types.void(FLOAT_POINTER, FLOAT_POINTER, N, N))
    def fill(b: ir.IRBuilder, x: ir.Value, target: ir.Value, count: ir.Value, copies: ir.Value) -> None:
        """`count` floats of x, or zeros."""
        count, first = b.sext(count, LONG), LONG(0)
        for size in (unit.lanes, 1):
            steps = b.sdiv(b.sub(count, first), LONG(size))
            kind = FLOAT if size == 1 else ir.VectorType(FLOAT, size)
            with b.if_else(b.icmp_signed("!=", copies, N_ZERO)) as (copied, blank):
                with copied, cgutils.for_range(b, steps) as loop:
                    at = b.mul(b.add(first, b.mul(loop.index, LONG(size))), LONG(WIDTH))
                    store(b, load(b, x, at, kind, WIDTH), target, at, WIDTH)
                with blank, cgutils.for_range(b, steps) as loop:
                    at = b.mul(b.add(first, b.mul(loop.index, LONG(size))), LONG(WIDTH))
                    store(b, kind(None), target, at, WIDTH)
            first = b.add(first, b.mul(steps, LONG(size)))

    @inline
    def copied(x: Pointer, padded: Pointer, image: Words, size: Words, pads: Words) -> None:
        height, width, channels = image
        inside = min(width, i32(size[1] - pads[1]))
        left, right = i32(pads[1] * channels), i32(i32(size[1] - pads[1] - inside) * channels)
        for row in range(size[0]):
            in_y = i32(row - pads[0])
            target = moved_floats(padded, i32(row * i32(size[1] * channels)))
            if 0 <= in_y < height:
                fill(x, target, left, i32(0))
                middle = moved_floats(target, left)
                fill(moved_floats(x, i32(in_y * width * channels)), middle, i32(inside * channels), i32(1))
                fill(x, moved_floats(middle, i32(inside * channels)), right, i32(0))
            else:
                fill(x, target, i32(size[1] * channels), i32(0))

    return copied


N_ZERO = ir.IntType(32)(0)
