"""float32 functions of math.h in Numba code, for CPUs that come without a C library.

Series on a reduced argument, within 3 units in the last place of the exact value (erfcf: 4e-6 of it where it is
above 1e-30; powf: 2 + |y| units). cross.py compiles those that a program calls into its object, under private names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import float32, int32, types

from edgecompress_runtime.kernels.arithmetic import f32, i32
from edgecompress_runtime.llvm.typed_numba import Float, Tuple, Word, inline, llvm_code

WHOLE = f32(2.0**23)  # from here on, every float32 is a whole number
LOG2_E = f32(math.log2(math.e))
LN2_HIGH = f32(355.0 / 512)  # few bits: times a whole number below 2^14 it is exact
LN2_LOW = f32(math.log(2) - 355.0 / 512)
SQRT_2 = f32(math.sqrt(2))
# (e**r - 1 - r) / r**2 for small r, the highest power first
SMALL_EXPM1 = tuple(f32(1 / n) for n in (40320, 5040, 720, 120, 24, 6, 2))
# erfc(x) exp(x^2) / t as a polynomial of t = 1 / (1 + x / 2), least squares of the relative error over x >= 0
ERFC = tuple(
    f32(c)
    for c in (
        0.28209475,
        0.28210369,
        0.24652512,
        0.18029476,
        0.0588173,
        0.07803554,
        -0.19639277,
        0.02887943,
        0.065331,
        -0.02568897,
    )
)


def _reinterpreted(source: types.Type, target: types.Type) -> Callable[..., Any]:
    kind = ir.FloatType() if target == float32 else ir.IntType(32)

    @llvm_code(target(source))
    def bits(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
        return b.bitcast(value, kind)

    return bits


_bits_of, _float_of = _reinterpreted(float32, int32), _reinterpreted(int32, float32)


@inline
def _power_of_two(n: Word) -> Float:
    """2**n, n from -126 to 127."""
    return _float_of(i32(i32(n + 127) << i32(23)))


@inline
def _nearest(x: Float) -> Word:
    return i32(x + f32(0.5)) if x >= f32(0) else i32(x - f32(0.5))


@inline
def _reduced(x: Float) -> Tuple:
    """(n, r): x = n ln 2 + r, r within half of ln 2."""
    n = _nearest(x * LOG2_E)
    return n, (x - f32(n) * LN2_HIGH) - f32(n) * LN2_LOW


@inline
def _small_expm1(r: Float) -> Float:
    """Taylor's series; r within 0.35."""
    p = SMALL_EXPM1[0]
    for c in SMALL_EXPM1[1:]:
        p = p * r + c
    return p * r * r + r


@inline
def _exponential(x: Float) -> Float:
    if x != x:
        return x
    if x > f32(88.72284):
        return f32(math.inf)
    if x < f32(-103.98):
        return f32(0)
    n, r = _reduced(x)
    half = i32(n >> i32(1))  # in two steps: 2**n may lie outside of the normal numbers
    return (f32(1) + _small_expm1(r)) * _power_of_two(half) * _power_of_two(i32(n - half))


@inline
def _exponential_minus_one(x: Float) -> Float:
    if x < f32(-17.5):
        return f32(-1)
    if not x < f32(88):
        return _exponential(x)
    n, r = _reduced(x)
    scale = _power_of_two(n)
    return scale * _small_expm1(r) + (scale - f32(1))


def expf(x: Float) -> Float:
    """e**x."""
    return _exponential(x)


def expm1f(x: Float) -> Float:
    """e**x - 1."""
    return _exponential_minus_one(x)


def tanhf(x: Float) -> Float:
    """The hyperbolic tangent."""
    size = abs(x)
    if size > f32(9.02):
        return f32(1) if x > f32(0) else f32(-1)
    t = _exponential_minus_one(f32(2) * size)
    y = t / (t + f32(2))
    return y if x >= f32(0) else -y


@inline
def _logarithm(x: Float) -> Tuple:
    """(k, f, rest), f + rest = ln m: x = 2**k m, m from sqrt(1/2) to sqrt(2); x positive and finite."""
    k = i32(-127)
    if x < f32(1.1754944e-38):
        x, k = x * WHOLE, i32(-150)
    bits = _bits_of(x)
    k = i32(k + i32(bits >> i32(23)))
    m = _float_of(i32(i32(bits & i32(0x7FFFFF)) | i32(0x3F800000)))
    if m > SQRT_2:
        m, k = m * f32(0.5), i32(k + 1)
    f = m - f32(1)
    s = f / (f32(2) + f)
    z = s * s
    p = f32(1 / 11)
    for c in (f32(1 / 9), f32(1 / 7), f32(1 / 5), f32(1 / 3)):
        p = p * z + c
    # ln m = 2 atanh s = f - s f + 2 s^3 p: f, which is exact, and what is to be added to it
    return k, f, s * (f32(2) * z * p - f)


def logf(x: Float) -> Float:
    """The natural logarithm; nan of negative numbers."""
    if x != x or x < f32(0):
        return f32(math.nan)
    if x == f32(0):
        return f32(-math.inf)
    if x == f32(math.inf):
        return x
    k, f, rest = _logarithm(x)
    return f32(k) * LN2_HIGH + (f + (f32(k) * LN2_LOW + rest))


def powf(x: Float, y: Float) -> Float:
    """x**y, with the special cases of C's powf."""
    if y == f32(0) or x == f32(1):
        return f32(1)
    if x != x or y != y:
        return f32(math.nan)
    size, sign = abs(x), f32(1)
    if x < f32(0):
        whole = abs(y) >= WHOLE or f32(i32(y)) == y
        if not whole and size < f32(math.inf):
            return f32(math.nan)
        if abs(y) < f32(2) * WHOLE and f32(i32(y)) == y and i32(y) & i32(1):
            sign = f32(-1)
    if size == f32(0):
        return f32(0) * sign if y > f32(0) else f32(math.inf) * sign
    if size == f32(math.inf):
        return size * sign if y > f32(0) else f32(0) * sign
    k, f, rest = _logarithm(size)
    y_high = _float_of(i32(_bits_of(y) & i32(-4096)))  # 12 bits: times k it is exact
    high, low = y_high * f32(k), (y - y_high) * f32(k)
    total = (high + low) + y * ((f + rest) * LOG2_E)
    if not total < f32(128.5):
        return f32(math.inf) * sign
    if total < f32(-151):
        return f32(0) * sign
    n = _nearest(total)
    left = (high - f32(n)) + low
    r = left * LN2_HIGH + (left * LN2_LOW + (y * f + y * rest))
    # of a large y rounding may leave more than half of ln 2
    more, r = _reduced(r)
    n = i32(n + more)
    half = i32(n >> i32(1))
    return (f32(1) + _small_expm1(r)) * _power_of_two(half) * _power_of_two(i32(n - half)) * sign


def erfcf(x: Float) -> Float:
    """1 - erf(x), the complementary error function."""
    size = abs(x)
    if size > f32(10.1):
        return f32(0) if x > f32(0) else f32(2)
    t = f32(1) / (f32(1) + f32(0.5) * size)
    p = f32(0)
    for c in ERFC[::-1]:
        p = p * t + c
    y = t * p * _exponential(-size * size)
    return y if x >= f32(0) else f32(2) - y


def truncf(x: Float) -> Float:
    """The whole number next to x towards 0."""
    return f32(i32(x)) if abs(x) < WHOLE else x


def floorf(x: Float) -> Float:
    """The largest whole number that is not above x."""
    if not abs(x) < WHOLE:
        return x
    whole = f32(i32(x))
    return whole - f32(1) if whole > x else whole


def sqrtf(x: Float) -> Float:
    """The square root, by Newton's steps from a first guess; nan of negative numbers."""
    if x != x or x < f32(0):
        return f32(math.nan)
    if x == f32(0) or x == f32(math.inf):
        return x
    scale = f32(1)
    if x < f32(1.1754944e-38):
        x, scale = x * f32(2.0**24), f32(2.0**-12)
    y = _float_of(i32(i32(_bits_of(x) >> i32(1)) + i32(0x1FBD1DF5)))  # within 4 %
    for _ in range(3):
        y = f32(0.5) * (y + x / y)
    return y * scale


FUNCTIONS = {f.__name__: f for f in (expf, expm1f, tanhf, logf, erfcf, powf, truncf, floorf, sqrtf)}
