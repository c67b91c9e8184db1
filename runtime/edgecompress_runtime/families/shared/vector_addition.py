"""ADD and SUB with Helium, four elements at a time, and with NEON, 16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecompress_runtime.families.aarch64 import neon
from edgecompress_runtime.families.cortex_m.helium_blocks import FOUR_BYTES, LANES, clamped, vector
from edgecompress_runtime.families.shared.addition import added
from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, WORD, function, load, store
from edgecompress_runtime.kernels.arithmetic import i32

Values = list[ir.Value]


class Helium:
    """What an addition needs of a vector unit. vectors: of four lanes, in a step."""

    vectors = 1

    @staticmethod
    def high_product(b: ir.IRBuilder, x: ir.Value, m: ir.Value) -> ir.Value:
        """(2 * x * m + 2**31) >> 32"""
        return b.call(function(b, "llvm.arm.mve.vqrdmulh.v4i32", LANES, LANES, LANES), [x, m])

    @staticmethod
    def shifted(b: ir.IRBuilder, x: ir.Value, up: ir.Value) -> ir.Value:
        shift = function(b, "llvm.arm.mve.vshl.vector.v4i32.v4i32", LANES, LANES, LANES, *[WORD] * 3)
        return b.call(shift, [x, up, WORD(0), WORD(0), WORD(0)])

    @staticmethod
    def narrowed(b: ir.IRBuilder, values: Values, low: ir.Value, high: ir.Value) -> ir.Value:
        return b.trunc(clamped(b, values[0], low, high), FOUR_BYTES)


class Neon:
    """The same of 64-bit Arm's."""

    vectors = 4
    high_product = staticmethod(neon.high_product)
    shifted = staticmethod(neon.shifted)
    narrowed = staticmethod(neon.narrowed)


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
    def add_vectors(typingctx, a, b, y, count, slopes, multiplier, term, down, bounds):
        """The first count - count % each elements; the rest is left to do."""

        def generate(context, builder, signature, args):
            a, b, y, count, slopes, multiplier, term, down, bounds = args
            slopes, (low, high) = ([builder.extract_value(v, i) for i in range(2)] for v in (slopes, bounds))
            # the product doubles its sums itself
            slopes = [vector(builder, [builder.ashr(v, WORD(1))] * 4) for v in slopes]
            multiplier, term, up = (vector(builder, [v] * 4) for v in (multiplier, term, builder.sub(WORD(0), down)))
            loop, values = Loop(builder, builder.sdiv(count, WORD(each)), [a, b, y], []), []
            for pair in zip(*(widened(builder, p) for p in loop.pointers[:2])):
                total = builder.add(*(builder.mul(v, slope) for v, slope in zip(pair, slopes)))
                scaled = builder.add(unit.high_product(builder, total, multiplier), term)
                values.append(unit.shifted(builder, scaled, up))
            store(builder, unit.narrowed(builder, values, low, high), loop.pointers[2], 0, 1)
            loop.close([each] * 3, [])
            return context.get_dummy_value()

        n, two = types.int32, types.UniTuple(types.int32, 2)
        return types.void(*[INT8_POINTER] * 3, n, two, n, n, n, two), generate

    def kernel(a, b, y, count, slopes, record, down, bounds):
        multiplier, term = record[0], record[1]
        add_vectors(a, b, y, count, slopes, multiplier, term, down, bounds)
        for i in range(i32(count - count % i32(each)), count):
            y[i] = added(a[i], b[i], slopes, multiplier, term, down, bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = __name__
    return kernel


helium_add, neon_add = addition("helium_add", Helium), addition("neon_add", Neon)
