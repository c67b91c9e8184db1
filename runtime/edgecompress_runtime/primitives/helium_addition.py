"""ADD and SUB with Helium: four elements at a time."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.binary import HEADROOM
from edgecompress_runtime.primitives.addition import added
from edgecompress_runtime.primitives.helium_blocks import FOUR_BYTES, LANES, clamped, scaled_twice, vector
from edgecompress_runtime.primitives.loop import Loop
from edgecompress_runtime.primitives.words import INT8_POINTER, WORD, function, load, store

LANES_A_STEP = 4


def operand(b: ir.IRBuilder, lanes: ir.Value, zero: ir.Value, multiplier: ir.Value, down: ir.Value) -> ir.Value:
    """requantize((lanes - zero) << HEADROOM)"""
    multiply = function(b, "llvm.arm.mve.vqrdmulh.v4i32", LANES, LANES, LANES)
    shift = function(b, "llvm.arm.mve.vshl.vector.v4i32.v4i32", LANES, LANES, LANES, *[WORD] * 3)
    centred = b.shl(b.sub(lanes, vector(b, [zero] * 4)), vector(b, [WORD(HEADROOM)] * 4))
    high = b.call(multiply, [centred, vector(b, [multiplier] * 4)])
    # rounds halves away from zero: VSHL with rounding takes them up, so negative numbers go down by one first
    sign = b.select(b.icmp_signed(">", down, WORD(0)), b.ashr(high, vector(b, [WORD(31)] * 4)), LANES([0] * 4))
    up = b.sub(WORD(0), down)
    return b.call(shift, [b.add(high, sign), vector(b, [up] * 4), WORD(0), WORD(1), WORD(0)])


@intrinsic
def add_vectors(typingctx, a, b, y, count, a_scaling, b_scaling, y_scaling, sign, low, high):
    """The first count - count % 4 elements; the rest is left to do."""

    def generate(context, builder, signature, args):
        a, b, y, count, *scalings, sign, low, high = args
        a_scaling, b_scaling, y_scaling = ([builder.extract_value(s, i) for i in range(3)] for s in scalings)
        loop = Loop(builder, builder.sdiv(count, WORD(LANES_A_STEP)), [a, b, y], [])
        left, right = (builder.sext(load(builder, p, 0, FOUR_BYTES, 1), LANES) for p in loop.pointers[:2])
        left, right = operand(builder, left, *a_scaling), operand(builder, right, *b_scaling)
        total = builder.add(left, builder.mul(right, vector(builder, [sign] * 4)))
        multiplier, term, down = y_scaling
        up = builder.sub(WORD(0), down)
        scaled = scaled_twice(builder, total, *(vector(builder, [v] * 4) for v in (multiplier, term, up)))
        store(builder, builder.trunc(clamped(builder, scaled, low, high), FOUR_BYTES), loop.pointers[2], 0, 1)
        loop.close([4] * 3, [])
        return context.get_dummy_value()

    three = types.UniTuple(types.int32, 3)
    return types.void(*[INT8_POINTER] * 3, types.int32, three, three, three, *[types.int32] * 3), generate


def helium_add(a, b, y, count, a_scaling, b_scaling, y_scaling, sign, low, high):
    """As addition.add_elements."""
    add_vectors(a, b, y, count, a_scaling, b_scaling, y_scaling, sign, low, high)
    for i in range(i32(count - count % i32(4)), count):
        y[i] = added(a[i], b[i], a_scaling, b_scaling, y_scaling, sign, low, high)
