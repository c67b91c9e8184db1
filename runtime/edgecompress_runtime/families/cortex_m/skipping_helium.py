"""Lists of weights (skipping.py) with Helium: 16 weights an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.cortex_m.helium import copy, dot, scaled_twice, scatter
from edgecompress_runtime.families.shared.plain_blocks import blank
from edgecompress_runtime.families.shared.skipping import (
    HEAD,
    TAIL,
    Lists,
    by_name,
    each_its_own,
    gathered,
    neighbours,
    skipping_kernels,
)
from edgecompress_runtime.families.shared.skipping_blocks import Entries, Values, block_of, walk
from edgecompress_runtime.families.shared.vectors import BYTES, vector
from edgecompress_runtime.families.shared.words import (
    BYTE,
    FOUR,
    INT8_POINTER,
    PAIR,
    PLACE,
    WORD,
    address,
    function,
    load,
    moved,
    word_at,
)
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Words, inline, llvm_code

PIXELS = 4  # the lanes of a vector


def _sixteen(
    b: ir.IRBuilder, x: ir.Value, x_step: ir.Value, entries: ir.Value, sums: Values
) -> tuple[ir.Value, Values]:
    """16 inputs and their weights."""
    way = b.zext(load(b, entries, 16, BYTE, 1), WORD)
    x, weights = address(b, x, b.shl(way, WORD(4)), BYTE), load(b, entries, 0, BYTES, 1)
    values = [load(b, x, b.mul(x_step, WORD(p)), BYTES, 1) for p in range(len(sums))]
    return x, [dot(b, s, value, weights) for s, value in zip(sums, values)]


def _picked(b: ir.IRBuilder, x: ir.Value, x_step: ir.Value, entries: ir.Value, sums: Values) -> tuple[ir.Value, Values]:
    """16 weights, and where in 256 bytes their inputs lie."""
    x = address(b, x, b.zext(load(b, entries, 32, BYTE, 1), WORD), BYTE)
    weights, offsets = load(b, entries, 0, BYTES, 1), load(b, entries, 16, BYTES, 1)
    name = "llvm.arm.mve.vldr.gather.offset.v16i8.p0.v16i8"
    gather = function(b, name, BYTES, BYTE.as_pointer(), BYTES, WORD, WORD, WORD)
    for p in range(len(sums)):
        pixel = address(b, x, b.mul(x_step, WORD(p)), BYTE)
        sums[p] = dot(b, sums[p], b.call(gather, [pixel, offsets, WORD(8), WORD(0), WORD(1)]), weights)
    return x, sums


@llvm_code(types.void(FOUR, INT8_POINTER, PLACE, PAIR))
def _store_lanes(b: ir.IRBuilder, sums: Tuple, record: ir.Value, target: Tuple, bounds: Tuple) -> None:
    """The sums of a channel's four pixels."""
    y, y_step = target
    multiplier, term, down = (vector(b, [load(b, record, 4 * k, WORD)] * PIXELS) for k in range(3))
    up = b.sub(vector(b, [WORD(0)] * PIXELS), down)
    values = scaled_twice(b, vector(b, sums), multiplier, term, up)
    scatter(b, y, vector(b, [b.mul(y_step, WORD(p)) for p in range(PIXELS)]), values, bounds)


def _blocks(some: int, turn: Entries) -> Callable[[int], Callable[..., Any]]:
    """some: bytes of an entry."""

    def block(pixels: int) -> Callable[..., Any]:
        sums_of = walk(pixels, some, ((1, turn),))
        if pixels != PIXELS:
            return block_of(sums_of, pixels)

        @inline
        def lanes(window: Tuple, part: Pointer, target: Tuple, bounds: Words) -> Pointer:
            count, bias = word_at(part, i32(0)), word_at(part, i32(4))
            sums, part = sums_of(window, moved(part, i32(HEAD)), count, bias)
            _store_lanes(sums, part, target, bounds)
            return moved(part, i32(TAIL))

        return lanes

    return block


HELIUM = Lists(16, each_its_own(neighbours(16)), True, 1, 16, copy, blank, _blocks(17, _sixteen))
HELIUM_PICKED = replace(HELIUM, listed=each_its_own(gathered(16)), whole=False, block=_blocks(33, _picked))
KERNELS = skipping_kernels("helium", __name__, HELIUM)
PICKED_KERNELS = skipping_kernels("helium_picked", __name__, HELIUM_PICKED)
globals().update(by_name(KERNELS) | by_name(PICKED_KERNELS))  # generated text imports them
