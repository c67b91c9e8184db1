"""gemmlowp fixed-point functions that SOFTMAX, LOG_SOFTMAX, LOGISTIC and TANH use, bit for bit.

A number with n integer bits is an int32 `raw` worth raw / 2**(31 - n). A product of numbers with n and m
integer bits has n + m of them. Source: gemmlowp fixedpoint.h, TFLite internal/common.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from edgecompress_runtime.kernels.arithmetic import (
    Number,
    divide_by_power_of_two,
    divided_by_power_of_two,
    high_product,
    i32,
    i64,
)

ONE = 2**31 - 1  # with 0 integer bits
FORTY_EIGHT_17THS, MINUS_THIRTY_TWO_17THS, ONE_Q2 = 1515870810, -1010580540, 2**29  # 2 integer bits
LOG_2, SQRT_HALF, FOURTH_ROOT_HALF = 1488522236, 1518500250, 1805811301
QUARTER_Q6 = 2**23  # 6 integer bits
# coefficients of the rational approximation of log around 2**-0.25, 0 integer bits
ALPHA_N, ALPHA_D, ALPHA_I, ALPHA_F = 117049297, 127690142, 1057819769, 638450708


def _leading_zeros(typingctx: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int32(types.int32), generate


leading_zeros: Callable[..., Number] = intrinsic(_leading_zeros)  # of an int32 seen as unsigned; 32 for 0


@njit(inline="always")
def saturating_shift_left(x: Number, exponent: Number) -> Number:
    """x * 2**exponent, at the ends of int32 where it would be beyond."""
    limit = i32((i64(1) << i64(31 - exponent)) - i64(1))
    if x > limit:
        return i32(2**31 - 1)
    if x < -limit:
        return i32(-(2**31))
    return i32(x << exponent)


@njit(inline="always")
def half_sum(a: Number, b: Number) -> Number:
    """(a + b) / 2 of numbers >= 0, halves up."""
    return i32((i64(a) + i64(b) + i64(1)) >> i64(1))


@njit(inline="always")
def one_over_one_plus(x: Number) -> Number:
    """1 / (1 + x) for x in [0, 1), by three steps of Newton and Raphson."""
    half = half_sum(x, i32(ONE))
    guess = i32(FORTY_EIGHT_17THS + high_product(half, i32(MINUS_THIRTY_TWO_17THS)))
    for _ in range(3):
        error = i32(ONE_Q2 - high_product(half, guess))
        guess = i32(guess + saturating_shift_left(high_product(guess, error), i32(2)))
    return saturating_shift_left(guess, i32(1))


@njit(inline="always")
def log_of_sum(x: Number) -> Number:
    """Natural logarithm, with 5 integer bits, of x >= 1 with 12."""
    zeros = leading_zeros(x)
    a = saturating_shift_left(high_product(saturating_shift_left(x, i32(zeros - 1)), i32(SQRT_HALF)), i32(1))
    a_exponent = i32(saturating_shift_left(i32(12 - zeros), i32(25)) + QUARTER_Q6)
    headroom = i32(leading_zeros(high_product(x, i32(SQRT_HALF))) - 1)
    b = saturating_shift_left(x, headroom)
    b_exponent = i32(saturating_shift_left(i32(12 - headroom), i32(25)) - QUARTER_Q6)
    r, exponent = min(a, b), max(a_exponent, b_exponent)

    p = half_sum(r, i32(FOURTH_ROOT_HALF))
    q = i32(2 * (r - FOURTH_ROOT_HALF))
    square = high_product(q, q)
    numerator = i32(high_product(q, r) + high_product(high_product(q, square), i32(ALPHA_N)))
    denominator = i32(
        high_product(p, i32(ALPHA_I + q + high_product(i32(ALPHA_D), square))) + high_product(i32(ALPHA_F), q)
    )
    fraction = high_product(divide_by_power_of_two(numerator, i32(6)), one_over_one_plus(denominator))
    return saturating_shift_left(i32(high_product(exponent, i32(LOG_2)) + fraction), i32(1))


# ---- on the host, of int64 arrays, when a layer is prepared ----

# exp(-2**k) for k = -2..4, 0 integer bits
POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def exp_on_negative(raw: np.ndarray, integer_bits: int) -> np.ndarray:
    """exp of numbers <= 0 with up to 5 integer bits, with 0 (gemmlowp exp_on_negative_values): a polynomial within
    the last quarter, times exp of each power of two in the rest."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    within = (raw & (quarter - 1)) - quarter
    result = _exp_between_minus_quarter_and_zero(within << integer_bits)
    rest = within - raw
    for k, factor in zip(range(-2, integer_bits), POWERS):
        result = np.where(rest & (1 << (fraction_bits + k)), _product(result, factor), result)
    return np.where(raw == 0, ONE, result)


def _exp_between_minus_quarter_and_zero(a: np.ndarray) -> np.ndarray:
    """Taylor around -1/8."""
    constant, third = 1895147668, 715827883
    x = a + (1 << 28)
    x2 = _product(x, x)
    x3, x4 = _product(x2, x), _product(x2, x2)
    x4_over_4 = divided_by_power_of_two(x4, 2)
    tail = divided_by_power_of_two(_product(x4_over_4 + x3, third) + x2, 1)
    return constant + _product(constant, x + tail)


def logistic(raw: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), 0 integer bits, of x with 4 (gemmlowp logistic)."""
    positive = np.minimum(_two_over_one_plus(exp_on_negative(-np.abs(raw), 4)) << 1, ONE)
    return np.where(raw == 0, 1 << 30, np.where(raw > 0, positive, ONE - positive))


def tanh(raw: np.ndarray) -> np.ndarray:
    """tanh(x), 0 integer bits, of x with 4: (1 - e) / (1 + e) with e = exp(-2 |x|) (gemmlowp tanh)."""
    positive = np.minimum((_two_over_one_plus(exp_on_negative(-np.abs(raw), 5)) - ONE_Q2) << 2, ONE)
    return np.sign(raw) * positive


def _two_over_one_plus(x: np.ndarray) -> np.ndarray:
    """2 / (1 + x), 2 integer bits, of x in [0, 1]: the steps of `one_over_one_plus`."""
    half = (x + ONE + 1) >> 1
    guess = FORTY_EIGHT_17THS + _product(half, MINUS_THIRTY_TWO_17THS)
    for _ in range(3):
        guess = guess + (_product(guess, ONE_Q2 - _product(half, guess)) << 2)
    return guess


def _product(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """`high_product` of arrays."""
    return (np.asarray(a, np.int64) * b + (1 << 30)) >> 31
