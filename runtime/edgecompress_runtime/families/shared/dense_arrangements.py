"""FULLY_CONNECTED of each family."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.aarch64 import neon
from edgecompress_runtime.families.aarch64.neon_dense import neon_dense, neon_dot_dense
from edgecompress_runtime.families.cortex_m.dsp import UNROLLED, widen, widened
from edgecompress_runtime.families.cortex_m.helium_blocks import (
    BYTES,
    FOUR_BYTES,
    LANES,
    clamped,
    copy_vectors,
    scaled_once_lanes,
    vector,
)
from edgecompress_runtime.families.shared.arranged_dense import DenseArrangement, dense, dense_coded
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import TO_BYTES
from edgecompress_runtime.families.shared.scaling import Scaling, scaled_once
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    WORD,
    address,
    function,
    load,
    load_pair,
    pinned,
    store,
)
from edgecompress_runtime.kernels.arithmetic import clamp, i32

FOUR = types.UniTuple(types.int32, 4)


def channel_records(scales: Scaling, groups: np.ndarray) -> np.ndarray:
    """int32 [groups, 4, 4]: four biases, multipliers, terms, shifts."""
    rows = np.stack([scales.bias, scales.multiplier, scales.term, scales.down]).astype(np.int32)
    return rows[:, groups].reshape(4, -1, 4).transpose(1, 0, 2)


def vector_records(scales: Scaling, groups: np.ndarray) -> np.ndarray:
    """The same with shifts negative, as VSHL takes them."""
    return channel_records(scales, groups) * np.array([1, 1, 1, -1], np.int32)[:, None]


@njit(inline="always")
def one(acc, records, r, up, low, high):
    scaled = scaled_once(i32(acc << up), records[i32(r + 4)], records[i32(r + 8)], records[i32(r + 12)])
    return clamp(scaled, low, high)


@njit(inline="always")
def stored(sums, records, r, target, up, low, high):
    a, b, c, d = sums
    target[0] = one(a, records, r, up, low, high)
    target[1] = one(b, records, i32(r + 1), up, low, high)
    target[2] = one(c, records, i32(r + 2), up, low, high)
    target[3] = one(d, records, i32(r + 3), up, low, high)


# ---- any CPU ----


@intrinsic
def dot_1x4(typingctx, x, w, depth, records, record):
    """w: int8 of four channels by turns; sums start from the biases."""

    def generate(context, b, signature, args):
        x, w, depth, records, record = args
        records = address(b, records, b.mul(record, WORD(4)), BYTE)
        pointers, sums = [x, w], [load(b, records, 4 * o, WORD) for o in range(4)]
        for count, unrolled in ((b.udiv(depth, WORD(UNROLLED)), UNROLLED), (b.urem(depth, WORD(UNROLLED)), 1)):
            loop = Loop(b, count, pointers, sums)
            sums = list(loop.values)
            for k in range(unrolled):
                value = b.sext(load(b, loop.pointers[0], k, BYTE, 1), WORD)
                ws = [b.sext(load(b, loop.pointers[1], 4 * k + o, BYTE, 1), WORD) for o in range(4)]
                sums = [b.add(s, b.mul(value, weight)) for s, weight in zip(sums, ws)]
            pointers, sums = loop.close([unrolled, 4 * unrolled], sums)
        return context.make_tuple(b, signature.return_type, sums)

    return FOUR(INT8_POINTER, INT8_POINTER, types.int32, INT32_POINTER, types.int32), generate


@njit(inline="always")
def plain_row(x, scratch, depth):
    return x


@njit(inline="always")
def plain_block(row, weights, padded, records, group, target, up, low, high):
    r = i32(group * 16)
    stored(dot_1x4(row, weights, padded, records, r), records, r, target, up, low, high)


plain_dense = dense("plain_dense", __name__, plain_row, plain_block)
plain_dense_coded = dense_coded("plain_dense_coded", __name__, plain_row, plain_block)

# ---- SMLAD ----


@intrinsic
def dsp_dot_1x4(typingctx, x, w, fours, records, record):
    """x: int16, widened; w: int8 of four channels by turns, four each, widened on the way."""

    def generate(context, b, signature, args):
        x, w, fours, records, record = args
        smlad = function(b, "llvm.arm.smlad", WORD, WORD, WORD, WORD)
        records = address(b, records, b.mul(record, WORD(4)), BYTE)
        pointers, sums = [x, w], [load(b, records, 4 * o, WORD) for o in range(4)]
        for count, unrolled in ((b.udiv(fours, WORD(2)), 2), (b.urem(fours, WORD(2)), 1)):
            loop = Loop(b, count, pointers, sums)
            sums = list(loop.values)
            for k in range(unrolled):
                xs = load_pair(b, loop.pointers[0], 8 * k)
                for o in range(4):
                    for value, weight in zip(xs, widened(b, load(b, loop.pointers[1], 16 * k + 4 * o, WORD))):
                        sums[o] = b.call(smlad, [value, weight, sums[o]])
                sums = pinned(b, sums)
            pointers, sums = loop.close([8 * unrolled, 16 * unrolled], sums)
        return context.make_tuple(b, signature.return_type, sums)

    return FOUR(INT8_POINTER, INT8_POINTER, types.int32, INT32_POINTER, types.int32), generate


@njit(inline="always")
def dsp_row(x, scratch, depth):
    """A row that is no multiple of four bytes is followed by as many of what lies behind it, times zero."""
    whole = i32(depth // i32(4))
    widen(x, scratch, whole)
    if depth % i32(4):
        for i in range(i32(whole * 8), i32(whole * 8 + 8)):
            scratch[i] = 0
        for i in range(i32(depth % i32(4))):
            # byte i of four goes to half (0, 2, 1, 3)[i]
            half = i32(i // i32(2) + i32(2) * (i % i32(2)))
            value = i32(x[i32(whole * 4 + i)])
            scratch[i32(whole * 8 + half * 2)] = value
            scratch[i32(whole * 8 + half * 2 + 1)] = value >> i32(8)
    return scratch


@njit(inline="always")
def dsp_block(row, weights, padded, records, group, target, up, low, high):
    r = i32(group * 16)
    stored(dsp_dot_1x4(row, weights, i32(padded // i32(4)), records, r), records, r, target, up, low, high)


dsp_dense = dense("dsp_dense", __name__, dsp_row, dsp_block)
dsp_dense_coded = dense_coded("dsp_dense_coded", __name__, dsp_row, dsp_block)

# ---- Helium ----


@intrinsic
def helium_dot_stored(typingctx, x, w, depth, records, record, target, up, low, high):
    """w: the weights of four channels one after the other; depth a multiple of 16."""

    def generate(context, b, signature, args):
        x, w, depth, records, record, target, up, low, high = args
        dot = function(b, "llvm.arm.mve.vmldava.v16i8", WORD, *[WORD] * 4, BYTES, BYTES)
        records, zero = address(b, records, b.mul(record, WORD(4)), BYTE), WORD(0)
        rows = [address(b, w, b.mul(depth, WORD(o)), BYTE) for o in range(4)]
        biases = [load(b, records, 4 * o, WORD) for o in range(4)]
        loop = Loop(b, b.udiv(depth, WORD(16)), [x, *rows], biases)
        value, *ws = (load(b, p, 0, BYTES, 1) for p in loop.pointers)
        sums = [b.call(dot, [zero, zero, zero, s, value, weight]) for s, weight in zip(loop.values, ws)]
        _, sums = loop.close([16] * 5, sums)
        acc = b.shl(vector(b, sums), vector(b, [up] * 4))
        y = scaled_once_lanes(b, acc, *(load(b, records, 16 * k, LANES) for k in (1, 2, 3)))
        store(b, b.trunc(clamped(b, y, low, high), FOUR_BYTES), target, 0, 1)
        return context.get_dummy_value()

    return types.void(
        INT8_POINTER, INT8_POINTER, types.int32, INT32_POINTER, types.int32, INT8_POINTER, *[types.int32] * 3
    ), generate


@njit(inline="always")
def helium_row(x, scratch, depth):
    if depth % i32(16) == 0:
        return x
    copy_vectors(x, scratch, i32(depth // i32(16)))
    for i in range(i32(depth - depth % i32(16)), depth):
        scratch[i] = x[i]
    return scratch


@njit(inline="always")
def helium_block(row, weights, padded, records, group, target, up, low, high):
    helium_dot_stored(row, weights, padded, records, i32(group * 16), target, up, low, high)


helium_dense = dense("helium_dense", __name__, helium_row, helium_block)
helium_dense_coded = dense_coded("helium_dense_coded", __name__, helium_row, helium_block)

PLAIN = DenseArrangement(plain_dense, 1, 1, 0, channel_records, Coded(plain_dense_coded, TO_BYTES))
DSP = DenseArrangement(dsp_dense, 4, 4, 2, channel_records, Coded(dsp_dense_coded, TO_BYTES))
HELIUM = DenseArrangement(helium_dense, 0, 16, 1, vector_records, Coded(helium_dense_coded, TO_BYTES))
NEON = DenseArrangement(neon_dense, 16, 16, 1, vector_records, None, neon.LEAST)
NEON_DOT = replace(NEON, kernel=neon_dot_dense, least=-128)
