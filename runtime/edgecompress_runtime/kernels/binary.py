"""Two operands, broadcast: ADD, SUB, MUL, DIV, MINIMUM, MAXIMUM, POW, PRELU, comparisons and logic.

dims and strides are those of `strides.collapsed`; y is written in order.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.kernels.arithmetic import (
    activation_range,
    as_float,
    clamp,
    float_activation_range,
    i32,
    quantize_multiplier,
    requantize,
)
from edgecompress_runtime.kernels.registry import Call, Options, call, prepares
from edgecompress_runtime.kernels.strides import broadcast, collapsed
from edgecompress_runtime.plan import Tensor

ADD, SUB, MUL, DIV, MINIMUM, MAXIMUM, POW = range(7)
EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, LOGICAL_AND, LOGICAL_OR = range(8)
HEADROOM = 20  # bits by which ADD and SUB scale their operands up (add.cc, left_shift)


def add(
    a, b, y, dims, a_strides, b_strides, a_zero, b_zero, y_zero, a_multiplier, a_shift, b_multiplier, b_shift,
    y_multiplier, y_shift, sign, low, high,
):  # fmt: skip
    """a + sign * b: both operands are brought to twice the larger scale, added, and scaled to y's."""
    n = i32(0)
    for i0 in range(dims[0]):
        for i1 in range(dims[1]):
            for i2 in range(dims[2]):
                for i3 in range(dims[3]):
                    for i4 in range(dims[4]):
                        a0 = i32(i0 * a_strides[0] + i1 * a_strides[1] + i2 * a_strides[2] + i3 * a_strides[3]
                                 + i4 * a_strides[4])  # fmt: skip
                        b0 = i32(i0 * b_strides[0] + i1 * b_strides[1] + i2 * b_strides[2] + i3 * b_strides[3]
                                 + i4 * b_strides[4])  # fmt: skip
                        for i5 in range(dims[5]):
                            left = i32(i32(a[i32(a0 + i5 * a_strides[5])] - a_zero) << HEADROOM)
                            right = i32(i32(b[i32(b0 + i5 * b_strides[5])] - b_zero) << HEADROOM)
                            total = i32(requantize(left, a_multiplier, a_shift)
                                        + sign * requantize(right, b_multiplier, b_shift))  # fmt: skip
                            y[n] = clamp(i32(requantize(total, y_multiplier, y_shift) + y_zero), low, high)
                            n = i32(n + 1)


def multiply(a, b, y, dims, a_strides, b_strides, a_zero, b_zero, y_zero, multiplier, shift, low, high):
    n = i32(0)
    for i0 in range(dims[0]):
        for i1 in range(dims[1]):
            for i2 in range(dims[2]):
                for i3 in range(dims[3]):
                    for i4 in range(dims[4]):
                        a0 = i32(i0 * a_strides[0] + i1 * a_strides[1] + i2 * a_strides[2] + i3 * a_strides[3]
                                 + i4 * a_strides[4])  # fmt: skip
                        b0 = i32(i0 * b_strides[0] + i1 * b_strides[1] + i2 * b_strides[2] + i3 * b_strides[3]
                                 + i4 * b_strides[4])  # fmt: skip
                        for i5 in range(dims[5]):
                            left = i32(a[i32(a0 + i5 * a_strides[5])] - a_zero)
                            right = i32(b[i32(b0 + i5 * b_strides[5])] - b_zero)
                            y[n] = clamp(i32(requantize(i32(left * right), multiplier, shift) + y_zero), low, high)
                            n = i32(n + 1)


def prelu(a, b, y, dims, a_strides, b_strides, a_zero, b_zero, y_zero, multiplier, shift, b_multiplier, b_shift):
    """a where a >= 0, else a * b."""
    n = i32(0)
    for i0 in range(dims[0]):
        for i1 in range(dims[1]):
            for i2 in range(dims[2]):
                for i3 in range(dims[3]):
                    for i4 in range(dims[4]):
                        a0 = i32(i0 * a_strides[0] + i1 * a_strides[1] + i2 * a_strides[2] + i3 * a_strides[3]
                                 + i4 * a_strides[4])  # fmt: skip
                        b0 = i32(i0 * b_strides[0] + i1 * b_strides[1] + i2 * b_strides[2] + i3 * b_strides[3]
                                 + i4 * b_strides[4])  # fmt: skip
                        for i5 in range(dims[5]):
                            value = i32(a[i32(a0 + i5 * a_strides[5])] - a_zero)
                            if value >= 0:
                                scaled = requantize(value, multiplier, shift)
                            else:
                                slope = i32(b[i32(b0 + i5 * b_strides[5])] - b_zero)
                                scaled = requantize(i32(value * slope), b_multiplier, b_shift)
                            y[n] = clamp(i32(scaled + y_zero), i32(-128), i32(127))
                            n = i32(n + 1)


@njit(inline="always")
def arithmetic(kind, a, b):
    # A chain, so that one compiled kernel serves all; with a literal `kind` LLVM leaves one branch.
    if kind == ADD:
        return a + b
    if kind == SUB:
        return a - b
    if kind == MUL:
        return a * b
    if kind == MINIMUM:
        return min(a, b)
    return max(a, b)


@njit(inline="always")
def compare(kind, a, b):
    if kind == EQUAL:
        return a == b
    if kind == NOT_EQUAL:
        return a != b
    if kind == LESS:
        return a < b
    if kind == LESS_EQUAL:
        return a <= b
    if kind == GREATER:
        return a > b
    if kind == GREATER_EQUAL:
        return a >= b
    if kind == LOGICAL_AND:
        return a != 0 and b != 0
    return a != 0 or b != 0


def binary(a, b, y, dims, a_strides, b_strides, kind, low, high):
    """float32 or integers as they are; int8 for MINIMUM and MAXIMUM of equally scaled operands."""
    n = i32(0)
    for i0 in range(dims[0]):
        for i1 in range(dims[1]):
            for i2 in range(dims[2]):
                for i3 in range(dims[3]):
                    for i4 in range(dims[4]):
                        a0 = i32(i0 * a_strides[0] + i1 * a_strides[1] + i2 * a_strides[2] + i3 * a_strides[3]
                                 + i4 * a_strides[4])  # fmt: skip
                        b0 = i32(i0 * b_strides[0] + i1 * b_strides[1] + i2 * b_strides[2] + i3 * b_strides[3]
                                 + i4 * b_strides[4])  # fmt: skip
                        for i5 in range(dims[5]):
                            left, right = a[i32(a0 + i5 * a_strides[5])], b[i32(b0 + i5 * b_strides[5])]
                            y[n] = clamp(arithmetic(kind, left, right), low, high)
                            n = i32(n + 1)
