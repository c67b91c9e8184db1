"""Armv8.1-M with Helium (Cortex-M55, M85): VMLADAVA multiplies 16 pairs of int8 and adds them to one register.

Requantisation takes the four sums of a block as the lanes of a vector: first channel, second, both again for
the second pixel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import bank_of_bytes
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.words import (
    BYTE,
    INT8_POINTER,
    INT32_POINTER,
    WORD,
    address,
    function,
    load,
    store,
)
from edgecompress_runtime.kernels.arithmetic import i32

FOUR_BYTES = ir.VectorType(BYTE, 4)
BYTES, LANES = ir.VectorType(BYTE, 16), ir.VectorType(WORD, 4)


def records(scales: Scaling, pairs: np.ndarray) -> np.ndarray:
    """int32 [pairs, 4, 4]: biases, multipliers, terms and negative shifts of two channels, twice."""
    rows = np.stack([scales.bias, scales.multiplier, scales.term, -scales.down]).astype(np.int32)
    return np.tile(rows[:, pairs].reshape(4, -1, 2).transpose(1, 0, 2), (1, 1, 2))


def vector(builder: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
    """int32 values as lanes."""
    result = ir.Constant(LANES, ir.Undefined)
    for lane, value in enumerate(values):
        result = builder.insert_element(result, value, WORD(lane))
    return result


def scaled_twice(b: ir.IRBuilder, acc: ir.Value, multiplier: ir.Value, term: ir.Value, up: ir.Value) -> ir.Value:
    """scaling.scaled_twice of four lanes; up: -down."""
    lanes, zero = (LANES, LANES), WORD(0)
    multiply = function(b, "llvm.arm.mve.vqrdmulh.v4i32", LANES, *lanes)
    shift = function(b, "llvm.arm.mve.vshl.vector.v4i32.v4i32", LANES, *lanes, *[WORD] * 3)
    high = b.call(multiply, [acc, multiplier])
    rounding = b.add(term, b.ashr(high, vector(b, [WORD(31)] * 4)))
    return b.call(shift, [b.add(high, rounding), up, zero, zero, zero])


def scaled_once_lanes(b: ir.IRBuilder, acc: ir.Value, multiplier: ir.Value, term: ir.Value, up: ir.Value) -> ir.Value:
    """scaling.scaled_once of four lanes; up: -down."""
    zero = WORD(0)
    multiply = function(b, "llvm.arm.mve.vmulh.v4i32", LANES, LANES, LANES, WORD)
    shift = function(b, "llvm.arm.mve.vshl.vector.v4i32.v4i32", LANES, LANES, LANES, *[WORD] * 3)
    return b.call(shift, [b.add(b.call(multiply, [acc, multiplier, zero]), term), up, zero, zero, zero])


def clamped(b: ir.IRBuilder, lanes: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    for name, bound in (("llvm.smax.v4i32", low), ("llvm.smin.v4i32", high)):
        lanes = b.call(function(b, name, LANES, LANES, LANES), [lanes, vector(b, [bound] * 4)])
    return lanes


@intrinsic
def dot_2x2_stored(typingctx, x, x_step, w, depth, records, record, target, y_step, low, high):
    """One block of strip_convolution; w: a channel's weights, then the other's; depth a multiple of 16."""

    def generate(context, b, signature, args):
        x, x_step, w, depth, records, record, target, y_step, low, high = args
        dot = function(b, "llvm.arm.mve.vmldava.v16i8", WORD, *[WORD] * 4, BYTES, BYTES)
        records = address(b, records, b.mul(record, WORD(64)), BYTE)
        biases, zero = [load(b, records, 4 * o, WORD) for o in (0, 1)], WORD(0)
        starts = [x, address(b, x, x_step, BYTE), w, address(b, w, depth, BYTE)]
        loop = Loop(b, b.udiv(depth, WORD(16)), starts, [*biases, *biases])
        x0, x1, w0, w1 = (load(b, p, 0, BYTES, 1) for p in loop.pointers)
        pairs = ((x0, w0), (x0, w1), (x1, w0), (x1, w1))
        sums = [b.call(dot, [zero, zero, zero, s, *pair]) for s, pair in zip(loop.values, pairs)]
        _, sums = loop.close([16] * 4, sums)
        y = scaled_twice(b, vector(b, sums), *(load(b, records, 16 * k, LANES) for k in (1, 2, 3)))
        one = b.add(y_step, WORD(1))
        name = "llvm.arm.mve.vstr.scatter.offset.p0.v4i32.v4i32"
        scatter = function(b, name, ir.VoidType(), BYTE.as_pointer(), LANES, LANES, WORD, WORD)
        offsets = vector(b, [WORD(0), WORD(1), y_step, one])
        b.call(scatter, [target, offsets, clamped(b, y, low, high), WORD(8), WORD(0)])
        return context.get_dummy_value()

    return types.void(
        INT8_POINTER,
        types.int32,
        INT8_POINTER,
        types.int32,
        INT32_POINTER,
        types.int32,
        INT8_POINTER,
        *[types.int32] * 3,
    ), generate


@intrinsic
def copy_vectors(typingctx, source, target, count):
    """16 * count bytes."""

    def generate(context, builder, signature, args):
        loop = Loop(builder, args[2], list(args[:2]), [])
        store(builder, load(builder, loop.pointers[0], 0, BYTES, 1), loop.pointers[1], 0, 1)
        loop.close([16, 16], [])
        return context.get_dummy_value()

    return types.void(INT8_POINTER, INT8_POINTER, types.int32), generate


@njit(inline="always")
def copy(source, target, n):
    if n % i32(16) == 0:
        copy_vectors(source, target, i32(n // i32(16)))
    else:
        for c in range(n):
            target[c] = source[c]


@njit(inline="always")
def blank(target, n, zero):
    for c in range(n):
        target[c] = zero


@njit(inline="always")
def bank(w, bank, first, pairs, depth):
    return w


@njit(inline="always")
def block(window, x_step, weights, depth, records, record, target, y_step, low, high):
    dot_2x2_stored(window, x_step, weights, depth, records, record, target, y_step, low, high)


BLOCKS = Blocks(1, 16, copy, blank, bank, block)
CODED = replace(BLOCKS, bank=bank_of_bytes)
helium_convolution = strip_convolution("helium_convolution", __name__, BLOCKS)
helium_convolution_coded = strip_convolution("helium_convolution_coded", __name__, CODED)
