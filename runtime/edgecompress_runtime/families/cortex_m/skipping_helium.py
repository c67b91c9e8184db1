"""Lists of weights (skipping.py) with Helium: 16 weights an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.cortex_m import helium_blocks
from edgecompress_runtime.families.cortex_m.helium_blocks import (
    BYTES,
    LANES,
    clamped,
    scaled_once_lanes,
    scaled_twice,
    vector,
)
from edgecompress_runtime.families.shared.skipping import HEAD, TAIL, Lists, each_its_own, gathered, neighbours
from edgecompress_runtime.families.shared.skipping_blocks import Entries, block_of, walk
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, WORD, address, function, load, moved, word_at
from edgecompress_runtime.kernels.arithmetic import i32

PIXELS = 4  # the lanes of a vector


def sixteen(b, x, x_step, entries, sums):
    """Helium: 16 inputs and their weights."""
    way = b.zext(load(b, entries, 16, BYTE, 1), WORD)
    x, weights = address(b, x, b.shl(way, WORD(4)), BYTE), load(b, entries, 0, BYTES, 1)
    values = [load(b, x, b.mul(x_step, WORD(p)), BYTES, 1) for p in range(len(sums))]
    return x, [dot(b, s, value, weights) for s, value in zip(sums, values)]


def picked(b, x, x_step, entries, sums):
    """Helium: 16 weights, and where in 256 bytes their inputs lie."""
    x = address(b, x, b.zext(load(b, entries, 32, BYTE, 1), WORD), BYTE)
    weights, offsets = load(b, entries, 0, BYTES, 1), load(b, entries, 16, BYTES, 1)
    name = "llvm.arm.mve.vldr.gather.offset.v16i8.p0.v16i8"
    gather = function(b, name, BYTES, BYTE.as_pointer(), BYTES, WORD, WORD, WORD)
    for p in range(len(sums)):
        pixel = address(b, x, b.mul(x_step, WORD(p)), BYTE)
        sums[p] = dot(b, sums[p], b.call(gather, [pixel, offsets, WORD(8), WORD(0), WORD(1)]), weights)
    return x, sums


def dot(b: ir.IRBuilder, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    step, zero = function(b, "llvm.arm.mve.vmldava.v16i8", WORD, *[WORD] * 4, BYTES, BYTES), WORD(0)
    return b.call(step, [zero, zero, zero, acc, x, w])


def stored_lanes(once: bool) -> Callable[..., Any]:
    """An intrinsic: (four sums, scale, target, y_step, up, low, high), the sums of a channel's pixels."""

    @intrinsic
    def stored(typingctx, sums, scale, target, y_step, up, low, high):
        def generate(context, b, signature, args):
            sums, scale, target, y_step, up, low, high = args
            multiplier, term, down = (vector(b, [load(b, scale, 4 * k, WORD)] * PIXELS) for k in range(3))
            acc = vector(b, [b.extract_value(sums, p) for p in range(PIXELS)])
            down = b.sub(vector(b, [WORD(0)] * PIXELS), down)
            if once:
                y = scaled_once_lanes(b, b.shl(acc, vector(b, [up] * PIXELS)), multiplier, term, down)
            else:
                y = scaled_twice(b, acc, multiplier, term, down)
            name = "llvm.arm.mve.vstr.scatter.offset.p0.v4i32.v4i32"
            scatter = function(b, name, ir.VoidType(), BYTE.as_pointer(), LANES, LANES, WORD, WORD)
            offsets = vector(b, [b.mul(y_step, WORD(p)) for p in range(PIXELS)])
            b.call(scatter, [target, offsets, clamped(b, y, low, high), WORD(8), WORD(0)])
            return context.get_dummy_value()

        words = types.UniTuple(types.int32, PIXELS)
        return types.void(words, INT8_POINTER, INT8_POINTER, *[types.int32] * 4), generate

    return stored


def blocks(some: int, turn: Entries) -> Callable[[int, bool], Callable[..., Any]]:
    """some: bytes of an entry."""

    def block(pixels: int, once: bool) -> Callable[..., Any]:
        sums_of = walk(pixels, some, ((1, turn),))
        if pixels != PIXELS:
            return block_of(sums_of, pixels, once)
        store = stored_lanes(once)

        @njit(inline="always")
        def lanes(window, x_step, part, target, y_step, up, low, high):
            count, bias = word_at(part, i32(0)), word_at(part, i32(4))
            sums, part = sums_of(window, x_step, moved(part, i32(HEAD)), count, bias)
            store(sums, part, target, y_step, up, low, high)
            return moved(part, i32(TAIL))

        return lanes

    return block


HELIUM = Lists(
    16, each_its_own(neighbours(16)), True, 1, 16, helium_blocks.copy, helium_blocks.blank, blocks(17, sixteen)
)
HELIUM_PICKED = replace(HELIUM, listed=each_its_own(gathered(16)), whole=False, block=blocks(33, picked))
