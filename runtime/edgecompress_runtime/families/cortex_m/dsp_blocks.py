"""Convolution with SMLAD: image and weights are widened to int16 in scratch memory, and read many times."""

from __future__ import annotations

from dataclasses import replace

from numba import njit

from edgecompress_runtime.families.cortex_m.dsp import dot_2x2, widen
from edgecompress_runtime.families.shared.decoding import bank_of_halves
from edgecompress_runtime.families.shared.scaling import scaled_twice
from edgecompress_runtime.families.shared.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.families.shared.words import moved, store_half, store_word
from edgecompress_runtime.kernels.arithmetic import clamp, i32


@njit(inline="always")
def copy(source, target, n):
    """In plain order where n is no multiple of four (the weights are arranged for that)."""
    if n % i32(4) == 0:
        widen(source, target, i32(n // i32(4)))
    else:
        for c in range(n):
            store_half(target, i32(c * 2), i32(source[c]))


@njit(inline="always")
def blank(target, n, zero):
    if n % i32(2) == 0:
        for c in range(i32(0), n, i32(2)):
            store_word(target, i32(c * 2), i32((zero & i32(0xFFFF)) * i32(0x10001)))
    else:
        for c in range(n):
            store_half(target, i32(c * 2), zero)


@njit(inline="always")
def bank(w, bank, first, pairs, depth):
    widen(moved(w, i32(first * depth * 2)), bank, i32(pairs * depth // i32(2)))
    return bank


@njit(inline="always")
def block(window, x_step, weights, depth, records, record, target, y_step, low, high):
    r = i32(record * 8)
    a, b, c, d = dot_2x2(window, x_step, weights, i32(depth // i32(4)), records[r], records[i32(r + 4)])
    m0, t0, d0 = records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]
    m1, t1, d1 = records[i32(r + 5)], records[i32(r + 6)], records[i32(r + 7)]
    target[0] = clamp(scaled_twice(a, m0, t0, d0), low, high)
    target[1] = clamp(scaled_twice(b, m1, t1, d1), low, high)
    target[y_step] = clamp(scaled_twice(c, m0, t0, d0), low, high)
    target[i32(y_step + 1)] = clamp(scaled_twice(d, m1, t1, d1), low, high)


BLOCKS = Blocks(2, 4, copy, blank, bank, block)
CODED = replace(BLOCKS, bank=bank_of_halves)
dsp_convolution = strip_convolution("dsp_convolution", __name__, BLOCKS)
dsp_convolution_coded = strip_convolution("dsp_convolution_coded", __name__, CODED)
