"""ADD and SUB with Helium, four elements at a time, and with NEON, 16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.binary import HEADROOM
from edgecompress_runtime.primitives import helium_blocks, neon
from edgecompress_runtime.primitives.addition import added
from edgecompress_runtime.primitives.helium_blocks import FOUR_BYTES, LANES, clamped, vector
from edgecompress_runtime.primitives.loop import Loop
from edgecompress_runtime.primitives.words import BYTE, INT8_POINTER, WORD, function, load, store

Values = list[ir.Value]


class Helium:
    """What an addition needs of a vector unit. vectors: of four lanes, in a step."""

    vectors = 1
    scaled_twice = staticmethod(helium_blocks.scaled_twice)

    @staticmethod
    def high_product(b: ir.IRBuilder, x: ir.Value, m: ir.Value) -> ir.Value:
        """(2 * x * m + 2**31) >> 32"""
        return b.call(function(b, "llvm.arm.mve.vqrdmulh.v4i32", LANES, LANES, LANES), [x, m])

    @staticmethod
    def shifted_half_up(b: ir.IRBuilder, x: ir.Value, up: ir.Value) -> ir.Value:
        """x << up, where up is 0 or negative."""
        shift = function(b, "llvm.arm.mve.vshl.vector.v4i32.v4i32", LANES, LANES, LANES, *[WORD] * 3)
        return b.call(shift, [x, up, WORD(0), WORD(1), WORD(0)])

    @staticmethod
    def narrowed(b: ir.IRBuilder, values: Values, low: ir.Value, high: ir.Value) -> ir.Value:
        return b.trunc(clamped(b, values[0], low, high), FOUR_BYTES)


class Neon:
    """The same of 64-bit Arm's."""

    vectors = 4
    scaled_twice = staticmethod(neon.scaled_twice)
    high_product = staticmethod(neon.high_product)
    shifted_half_up = staticmethod(neon.shifted_half_up)
    narrowed = staticmethod(neon.narrowed)


def operand(b: ir.IRBuilder, unit: Any, lanes: ir.Value, scaling: Values) -> ir.Value:
    """requantize((lanes - zero) << HEADROOM); scaling: (zero, multiplier, down)."""
    zero, multiplier, down = scaling
    centred = b.shl(b.sub(lanes, vector(b, [zero] * 4)), vector(b, [WORD(HEADROOM)] * 4))
    high = unit.high_product(b, centred, vector(b, [multiplier] * 4))
    # rounds halves away from zero: the shift takes them up, so negative numbers go down by one first
    sign = b.select(b.icmp_signed(">", down, WORD(0)), b.ashr(high, vector(b, [WORD(31)] * 4)), LANES([0] * 4))
    return unit.shifted_half_up(b, b.add(high, sign), vector(b, [b.sub(WORD(0), down)] * 4))


def addition(name: str, unit: Any) -> Callable[..., None]:
    """The kernel for a vector unit: as addition.add_elements."""
    each = 4 * unit.vectors
    stored = ir.VectorType(BYTE, each)

    def widened(b: ir.IRBuilder, pointer: ir.Value) -> Values:
        value = load(b, pointer, 0, stored, 1)
        undefined = ir.Constant(stored, ir.Undefined)
        parts = (ir.VectorType(WORD, 4)(list(range(n, n + 4))) for n in range(0, each, 4))
        return [b.sext(b.shuffle_vector(value, undefined, part), LANES) for part in parts]

    @intrinsic
    def add_vectors(typingctx, a, b, y, count, a_scaling, b_scaling, y_scaling, sign, low, high):
        """The first count - count % each elements; the rest is left to do."""

        def generate(context, builder, signature, args):
            a, b, y, count, *scalings, sign, low, high = args
            *inward, (multiplier, term, down) = ([builder.extract_value(s, i) for i in range(3)] for s in scalings)
            outward = [vector(builder, [v] * 4) for v in (multiplier, term, builder.sub(WORD(0), down))]
            loop, values = Loop(builder, builder.sdiv(count, WORD(each)), [a, b, y], []), []
            for left, right in zip(*(widened(builder, p) for p in loop.pointers[:2])):
                left, right = (operand(builder, unit, v, s) for v, s in zip((left, right), inward))
                total = builder.add(left, builder.mul(right, vector(builder, [sign] * 4)))
                values.append(unit.scaled_twice(builder, total, *outward))
            store(builder, unit.narrowed(builder, values, low, high), loop.pointers[2], 0, 1)
            loop.close([each] * 3, [])
            return context.get_dummy_value()

        three = types.UniTuple(types.int32, 3)
        return types.void(*[INT8_POINTER] * 3, types.int32, three, three, three, *[types.int32] * 3), generate

    def kernel(a, b, y, count, a_scaling, b_scaling, y_scaling, sign, low, high):
        add_vectors(a, b, y, count, a_scaling, b_scaling, y_scaling, sign, low, high)
        for i in range(i32(count - count % i32(each)), count):
            y[i] = added(a[i], b[i], a_scaling, b_scaling, y_scaling, sign, low, high)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = __name__
    return kernel


helium_add, neon_add = addition("helium_add", Helium), addition("neon_add", Neon)
