"""Convolution for any CPU: int8 strip, weights straight from flash, two by two sums in registers."""
from __future__ import annotations

from numba import njit

from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.primitives.scaling import scaled_twice
from edgecompress_runtime.primitives.strip_convolution import Blocks, strip_convolution
from edgecompress_runtime.primitives.words import moved


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
    a = c = records[r]
    b = d = records[i32(r + 4)]
    second = moved(window, x_step)
    for k in range(depth):
        x0, x1 = i32(window[k]), i32(second[k])
        w0, w1 = i32(weights[i32(2 * k)]), i32(weights[i32(2 * k + 1)])
        a, b, c, d = i32(a + x0 * w0), i32(b + x0 * w1), i32(c + x1 * w0), i32(d + x1 * w1)
    m0, t0, d0 = records[i32(r + 1)], records[i32(r + 2)], records[i32(r + 3)]
    m1, t1, d1 = records[i32(r + 5)], records[i32(r + 6)], records[i32(r + 7)]
    target[0] = clamp(scaled_twice(a, m0, t0, d0), low, high)
    target[1] = clamp(scaled_twice(b, m1, t1, d1), low, high)
    target[y_step] = clamp(scaled_twice(c, m0, t0, d0), low, high)
    target[i32(y_step + 1)] = clamp(scaled_twice(d, m1, t1, d1), low, high)


plain_convolution = strip_convolution("plain_convolution", Blocks(1, 1, copy, blank, bank, block))
