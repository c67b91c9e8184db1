"""Functions of float32, a vector at a time: EXP, LOGISTIC, TANH, ELU, GELU and SOFTMAX.

The series are those of llvm/float_functions.py, with the same errors, where the plain kernels call math.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from edgecompress_runtime.families.shared.float_blocks import FLOAT, FLOAT_POINTER, WIDTH, FloatUnit, moved_floats
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.vectors import splat
from edgecompress_runtime.families.shared.words import LONG, WORD, N, load, store
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.unary import SQRT_2_OVER_PI, SQRT_HALF
from edgecompress_runtime.llvm.float_functions import ERFC, LN2_HIGH, LN2_LOW, LOG2_E, SMALL_EXPM1
from edgecompress_runtime.llvm.typed_numba import Float, Pointer, Word, llvm_code
from edgecompress_runtime.options import GeluOptions, Options, SoftmaxOptions
from edgecompress_runtime.plan import Tensor

SOME = 4  # values; vectors of them for what is left of a row
SIGN = -(2**31)
MAGIC = 1.5 * 2**23  # floats around it are whole numbers
Vector = Callable[[ir.IRBuilder, ir.Value], ir.Value]  # a function of vectors of float32


def _constant(x: ir.Value, value: float | np.float32) -> ir.Constant:
    """In every lane, of x's type."""
    return x.type([float(np.float32(value))] * x.type.count)


def _at_most(b: ir.IRBuilder, x: ir.Value, most: float) -> ir.Value:
    """What is no number stays so."""
    return b.select(b.fcmp_ordered(">", x, _constant(x, most)), _constant(x, most), x)


def _polynomial(b: ir.IRBuilder, x: ir.Value, coefficients: Sequence[np.float32]) -> ir.Value:
    """By Horner; the highest first."""
    total: ir.Value = _constant(x, coefficients[0])
    for c in coefficients[1:]:
        total = b.fadd(b.fmul(total, x), _constant(x, c))
    return total


def _reduced(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(n, r): x = n ln 2 + r, r within half of ln 2; n as int32."""
    words = ir.VectorType(WORD, x.type.count)
    magic = b.fadd(b.fmul(x, _constant(x, LOG2_E)), _constant(x, MAGIC))
    bits = int(np.float32(MAGIC).view(np.int32))
    whole = b.fsub(magic, _constant(x, MAGIC))
    r = b.fsub(b.fsub(x, b.fmul(whole, _constant(x, LN2_HIGH))), b.fmul(whole, _constant(x, LN2_LOW)))
    return b.sub(b.bitcast(magic, words), words([bits] * words.count)), r


def _power_of_two(b: ir.IRBuilder, n: ir.Value) -> ir.Value:
    """n from -126 to 127."""
    kind = n.type
    shifted = b.shl(b.add(n, kind([127] * kind.count)), kind([23] * kind.count))
    return b.bitcast(shifted, ir.VectorType(FLOAT, kind.count))


def _small_expm1(b: ir.IRBuilder, r: ir.Value) -> ir.Value:
    return b.fadd(b.fmul(b.fmul(_polynomial(b, r, SMALL_EXPM1), r), r), r)


def exponential(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e**x."""
    x = _at_most(b, x, 89)  # infinity
    x = b.select(b.fcmp_ordered("<", x, _constant(x, -104.5)), _constant(x, -104.5), x)  # 0
    n, r = _reduced(b, x)
    half = b.ashr(n, n.type([1] * n.type.count))  # in two steps: 2**n may lie outside of the normal numbers
    value = b.fmul(b.fadd(_constant(x, 1), _small_expm1(b, r)), _power_of_two(b, half))
    return b.fmul(value, _power_of_two(b, b.sub(n, half)))


def _exponential_minus_one(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x from -18 to 88."""
    n, r = _reduced(b, x)
    scale = _power_of_two(b, n)
    return b.fadd(b.fmul(scale, _small_expm1(b, r)), b.fsub(scale, _constant(x, 1)))


def logistic(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / (1 + e**-x)."""
    return b.fdiv(_constant(x, 1), b.fadd(_constant(x, 1), exponential(b, b.fneg(x))))


def _parts(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(|x|, its sign bit as int32)."""
    words = ir.VectorType(WORD, x.type.count)
    bits = b.bitcast(x, words)
    size = b.bitcast(b.and_(bits, words([~SIGN] * words.count)), x.type)
    return size, b.and_(bits, words([SIGN] * words.count))


def tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The hyperbolic tangent."""
    size, sign = _parts(b, x)
    t = _exponential_minus_one(b, b.fmul(_constant(x, 2), _at_most(b, size, 9.1)))
    y = b.fdiv(t, b.fadd(t, _constant(x, 2)))
    return b.bitcast(b.or_(b.bitcast(y, sign.type), sign), x.type)


def elu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x, or e**x - 1 below zero."""
    negative = b.select(b.fcmp_ordered("<", x, _constant(x, -17.5)), _constant(x, -17.5), _at_most(b, x, 0))
    return b.select(b.fcmp_ordered("<", x, _constant(x, 0)), _exponential_minus_one(b, negative), x)


def gelu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x times the normal distribution's cumulative function at x: x / 2 * erfc(-x / sqrt(2))."""
    z = b.fmul(b.fneg(x), _constant(x, SQRT_HALF))
    size, _ = _parts(b, z)
    far = b.fcmp_ordered(">", size, _constant(x, 10.1))
    size = _at_most(b, size, 10.1)
    one = _constant(x, 1)
    t = b.fdiv(one, b.fadd(one, b.fmul(_constant(x, 0.5), size)))
    y = b.fmul(b.fmul(t, _polynomial(b, t, ERFC[::-1])), exponential(b, b.fmul(b.fneg(size), size)))
    y = b.select(far, _constant(x, 0), y)
    y = b.select(b.fcmp_ordered(">=", z, _constant(x, 0)), y, b.fsub(_constant(x, 2), y))
    return b.fmul(b.fmul(_constant(x, 0.5), x), y)


def gelu_tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """`gelu` with tanh in place of erf."""
    cubic = b.fadd(x, b.fmul(b.fmul(b.fmul(_constant(x, 0.044715), x), x), x))
    rising = b.fadd(_constant(x, 1), tanh(b, b.fmul(_constant(x, SQRT_2_OVER_PI), cubic)))
    return b.fmul(b.fmul(_constant(x, 0.5), x), rising)


FUNCTIONS: dict[str, Vector] = {"EXP": exponential, "LOGISTIC": logistic, "TANH": tanh, "ELU": elu}


def _by_vectors(
    b: ir.IRBuilder, unit: FloatUnit, count: ir.Value, body: Callable[[ir.Value, ir.VectorType], None]
) -> None:
    """body(offset in bytes, type of the vector there), for all of `count` floats."""
    count, first = b.sext(count, LONG), LONG(0)
    for size in sorted({unit.lanes, SOME, 1}, reverse=True):
        steps = b.sdiv(b.sub(count, first), LONG(size))
        with cgutils.for_range(b, steps) as loop:
            body(b.mul(b.add(first, b.mul(loop.index, LONG(size))), LONG(WIDTH)), ir.VectorType(FLOAT, size))
        first = b.add(first, b.mul(steps, LONG(size)))


@cache
def _each(unit: FloatUnit, function: Vector) -> Callable[..., None]:
    @llvm_code(types.void(FLOAT_POINTER, FLOAT_POINTER, N))
    def run(b: ir.IRBuilder, x: ir.Value, y: ir.Value, count: ir.Value) -> None:
        def body(at: ir.Value, kind: ir.VectorType) -> None:
            store(b, function(b, load(b, x, at, kind, WIDTH)), y, at, WIDTH)

        _by_vectors(b, unit, count, body)

    def kernel(x: Pointer, y: Pointer, count: Word) -> None:
        run(x, y, count)

    kernel.__name__ = f"{function.__name__}_float"
    return kernel


@cache
def _softmax(unit: FloatUnit) -> Callable[..., None]:
    @llvm_code(types.void(FLOAT_POINTER, FLOAT_POINTER, N, types.float32))
    def row(b: ir.IRBuilder, x: ir.Value, y: ir.Value, depth: ir.Value, beta: ir.Value) -> None:
        top = cgutils.alloca_once_value(b, load(b, x, LONG(0), FLOAT, WIDTH))
        total = cgutils.alloca_once_value(b, FLOAT(0.0))

        def greatest(at: ir.Value, kind: ir.VectorType) -> None:
            values = load(b, x, at, kind, WIDTH)
            b.store(_folded(b, values, b.load(top), lambda a, c: b.select(b.fcmp_ordered(">", c, a), c, a)), top)

        def exponentials(at: ir.Value, kind: ir.VectorType) -> None:
            difference = b.fsub(load(b, x, at, kind, WIDTH), splat(b, b.load(top), kind.count))
            values = exponential(b, b.fmul(difference, splat(b, beta, kind.count)))
            store(b, values, y, at, WIDTH)
            b.store(_folded(b, values, b.load(total), b.fadd), total)

        def shares(at: ir.Value, kind: ir.VectorType) -> None:
            store(b, b.fdiv(load(b, y, at, kind, WIDTH), splat(b, b.load(total), kind.count)), y, at, WIDTH)

        for body in (greatest, exponentials, shares):
            _by_vectors(b, unit, depth, body)

    def softmax_vectors(x: Pointer, y: Pointer, rows: Word, depth: Word, beta: Float) -> None:
        for r in range(rows):
            row(moved_floats(x, i32(r * depth)), moved_floats(y, i32(r * depth)), depth, beta)

    return softmax_vectors


def _folded(b: ir.IRBuilder, values: ir.Value, first: ir.Value, join: Callable[..., ir.Value]) -> ir.Value:
    """All lanes as one, half of them at a time, and `first`."""
    while values.type.count > 1:
        half = values.type.count // 2
        parts = (ir.VectorType(WORD, half)(list(range(at, at + half))) for at in (0, half))
        values = join(*(b.shuffle_vector(values, values, part) for part in parts))
    return join(first, b.extract_element(values, WORD(0)))


def prepare_function(
    kind: str, unit: FloatUnit, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
) -> list[Step] | None:
    """One of FUNCTIONS."""
    return _step(unit, FUNCTIONS[kind], inputs[0], outputs[0])


def prepare_gelu(
    unit: FloatUnit, inputs: Sequence[Any], outputs: Sequence[Tensor], options: GeluOptions
) -> list[Step] | None:
    """Both of them."""
    return _step(unit, gelu_tanh if options.approximate else gelu, inputs[0], outputs[0])


def _step(unit: FloatUnit, function: Vector, x: Tensor, y: Tensor) -> list[Step] | None:
    if x.dtype != np.float32 or y.dtype != np.float32 or x.data is not None:
        return None
    return [Step(_each(unit, function), (x, y, x.size), {x: 0})]


def prepare_softmax(
    unit: FloatUnit, inputs: Sequence[Any], outputs: Sequence[Tensor], options: SoftmaxOptions
) -> list[Step] | None:
    """Along the last axis."""
    x, (y,) = inputs[0], outputs
    if x.dtype != np.float32 or x.size == 0:
        return None
    depth = x.shape[-1]
    return [Step(_softmax(unit), (x, y, x.size // depth, depth, float(options.beta)))]
