"""Convolution for any CPU: int8 strip, weights straight from flash, two by two sums in registers."""

from __future__ import annotations

from dataclasses import replace

from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.families.shared.counted_loop import Loop
from edgecompress_runtime.families.shared.decoding import bank_of_bytes
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, WORD, address, load
from edgecompress_runtime.kernels.arithmetic import clamp, i32

UNROLLED = 4


@intrinsic
def dot_2x2(typingctx, x, x_step, w, depth, bias_0, bias_1):
    """Two pixels by two channels: (x0 w0, x0 w1, x1 w0, x1 w1). w: int8 of both channels by turns."""

    def generate(context, b, signature, args):
        x, x_step, w, depth, *biases = args
        pointers, sums = [x, w], [*biases, *biases]
        for count, unrolled in ((b.udiv(depth, WORD(UNROLLED)), UNROLLED), (b.urem(depth, WORD(UNROLLED)), 1)):
            loop = Loop(b, count, pointers, sums)
            second, sums = address(b, loop.pointers[0], x_step, BYTE), list(loop.values)
            for k in range(unrolled):
                xs = [b.sext(load(b, p, k, BYTE, 1), WORD) for p in (loop.pointers[0], second)]
                ws = [b.sext(load(b, loop.pointers[1], 2 * k + o, BYTE, 1), WORD) for o in (0, 1)]
                sums = [b.add(s, b.mul(xs[i // 2], ws[i % 2])) for i, s in enumerate(sums)]
            pointers, sums = loop.close([unrolled, 2 * unrolled], sums)
        return context.make_tuple(b, signature.return_type, sums)

    arguments = (INT8_POINTER, types.int32, INT8_POINTER, *[types.int32] * 3)
    return types.UniTuple(types.int32, 4)(*arguments), generate


@njit(inline="always")
def copy(source, target, n):
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
    """weights: of both channels by turns."""
    r = i32(record * 8)
    a, b, c, d = dot_2x2(window, x_step, weights, depth, records[r], records[i32(r + 4)])
    m0, t0, d0 = records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]
    m1, t1, d1 = records[i32(r + 5)], records[i32(r + 6)], records[i32(r + 7)]
    target[0] = clamp(scaled_twice(a, m0, t0, d0), low, high)
    target[1] = clamp(scaled_twice(b, m1, t1, d1), low, high)
    target[y_step] = clamp(scaled_twice(c, m0, t0, d0), low, high)
    target[i32(y_step + 1)] = clamp(scaled_twice(d, m1, t1, d1), low, high)


BLOCKS = Blocks(1, 1, copy, blank, bank, block)
CODED = replace(BLOCKS, bank=bank_of_bytes)
plain_convolution = strip_convolution("plain_convolution", __name__, BLOCKS)
plain_convolution_coded = strip_convolution("plain_convolution_coded", __name__, CODED)
