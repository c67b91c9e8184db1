"""Armv8.1-M with Helium (Cortex-M55, M85): VMLADAVA multiplies 16 pairs of int8 and adds them to one register.

Requantisation takes the four sums of a block as the lanes of a vector.
"""
from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.primitives.loop import Loop
from edgecompress_runtime.primitives.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.primitives.words import BYTE, INT8_POINTER, INT32_POINTER, WORD, address, function, load, store

BYTES, LANES = ir.VectorType(BYTE, 16), ir.VectorType(WORD, 4)
RECORD = 64  # bytes for a pair of channels: biases, multipliers, terms, downs, each (first, second) twice


def splat(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return vector(builder, [value] * 4)


def vector(builder: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
    result = ir.Constant(LANES, ir.Undefined)
    for lane, value in enumerate(values):
        result = builder.insert_element(result, value, WORD(lane))
    return result


def requantized(b: ir.IRBuilder, sums: ir.Value, multiplier: ir.Value, term: ir.Value, down: ir.Value) -> ir.Value:
    """scaling.scaled_twice on four lanes; `down` negative, as VSHL takes it."""
    product = function(b, "llvm.arm.mve.vqrdmulh.v4i32", LANES, LANES, LANES) if False else None
    del product
    high = b.call(function(b, "llvm.arm.mve.qrdmulh.predicated.v4i32.v4i1", LANES, LANES, LANES), [sums, multiplier])
    return high


@intrinsic
def dot_2x2_stored(typingctx, x, x_step, w, depth, records, target, y_step, low, high):
    """One block of strip_convolution; w: the first channel's weights, then the second's; depth a multiple of 16."""

    def generate(context, b, signature, args):
        x, x_step, w, depth, records, target, y_step, low, high = args
        dot = function(b, "llvm.arm.mve.vmldava.v16i8", WORD, *[WORD] * 4, BYTES, BYTES)
        multiply = function(b, "llvm.arm.mve.vqrdmulh.v4i32", LANES, LANES, LANES)
        shift = function(b, "llvm.arm.mve.vshl.vector.v4i32.v4i32", LANES, LANES, LANES, *[WORD] * 3)
        biases = [load(b, records, 4 * o, WORD) for o in (0, 1)]
        zero = WORD(0)
        starts = [x, address(b, x, x_step, BYTE), w, address(b, w, depth, BYTE)]
        loop = Loop(b, b.udiv(depth, WORD(16)), starts, [*biases, *biases])
        x0, x1, w0, w1 = (load(b, p, 0, BYTES, 1) for p in loop.pointers)
        sums = [b.call(dot, [zero, zero, zero, s, *pair])
                for s, pair in zip(loop.values, ((x0, w0), (x0, w1), (x1, w0), (x1, w1)))]  # fmt: skip
        _, sums = loop.close([16] * 4, sums)
        acc = vector(b, sums)
        multiplier, term, down = (load(b, records, 16 * k, LANES) for k in (1, 2, 3))
        y = b.call(multiply, [acc, multiplier])
        y = b.add(b.add(y, term), b.ashr(y, splat(b, WORD(31))))
        y = b.call(shift, [y, down, zero, zero, zero])
        y = b.call(function(b, "llvm.smax.v4i32", LANES, LANES, LANES), [y, splat(b, low)])
        y = b.call(function(b, "llvm.smin.v4i32", LANES, LANES, LANES), [y, splat(b, high)])
        for lane, at in enumerate((WORD(0), WORD(1), y_step, b.add(y_step, WORD(1)))):
            store(b, b.trunc(b.extract_element(y, WORD(lane)), BYTE), target, at, 1)
        return context.get_dummy_value()

    return types.void(INT8_POINTER, types.int32, INT8_POINTER, types.int32, INT8_POINTER, INT8_POINTER,
                      *[types.int32] * 3), generate  # fmt: skip
