"""int8 functions of one variable: a table of 256 entries each, filled when the layer is prepared.

One kernel serves them all. Where TFLM computes in fixed point at run time (RELU, LEAKY_RELU, HARD_SWISH, ABS, LOGISTIC,
TANH, requantizing), the entries come from the same arithmetic; where it fills a table itself (ELU, ...), from float32
as in common.h LUTPopulate. LiteRT takes exp, tanh and the like from the machine's C library,
where some are an ulp off; here they are correctly rounded, so that a model has one result everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgecompress_runtime.kernels import fixed_point
from edgecompress_runtime.kernels.arithmetic import (
    INT8_MAX,
    INT8_MIN,
    Array,
    Number,
    divided_by_power_of_two,
    f32,
    i32,
    quantize_multiplier,
    requantized,
    round_half_away,
    saturating_multiplier,
    scale_ratio,
    stored_bound,
)
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, call, prepares
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor

# (x, y) -> [256] values on y's grid
Table = Callable[[Tensor, Tensor], np.ndarray]
VALUES = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int32)


def look_up(x: Array, table: Array, y: Array, count: Number) -> None:
    """table: int8 [256], the first entry for -128."""
    for i in range(count):
        y[i] = table[i32(x[i] + i32(128))]


def table_call(x: Tensor, y: Tensor, stored: np.ndarray) -> list[Call]:
    """stored: [256] values on y's grid, clamped here."""
    return [call(look_up, x, np.clip(stored, INT8_MIN, INT8_MAX).astype(np.int8), y, x.size)]


@prepares("TABLE")
def _prepare_table(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
    """Any function of one int8 value, its entries a constant of the plan; TFLite has no such operator."""
    x, table, (y,) = inputs[0], inputs[1], outputs
    return [call(look_up, x, table, y, x.size)]


# ---- fixed point ----


def rescaled(x: Tensor, y: Tensor) -> np.ndarray:
    """QUANTIZE of int8."""
    return requantized(VALUES - x.zero, *saturating_multiplier(scale_ratio(x, y))) + y.zero


def single_ratio(x: Tensor, y: Tensor) -> float:
    """s_x / s_y in float32."""
    return float(x.scale[0] / y.scale[0])


def relu(low: float, high: float | None, ratio: Callable[[Tensor, Tensor], float] = single_ratio) -> Table:
    """RELU in TFLM; RELU6, which TFLM does not scale, and RELU_N1_TO_1 and RELU_0_TO_1, which it lacks, in LiteRT
    (activations.cc QuantizedReluX, the ratio in float32)."""

    def table(x: Tensor, y: Tensor) -> np.ndarray:
        stored = requantized(VALUES - x.zero, *saturating_multiplier(ratio(x, y))) + y.zero
        return np.clip(stored, stored_bound(low, y, INT8_MIN), stored_bound(high, y, INT8_MAX))

    return table


def leaky_relu(alpha: float) -> Table:
    """LEAKY_RELU (leaky_relu.h QuantizeLeakyRelu, with TFLM's ratios)."""

    def table(x: Tensor, y: Tensor) -> np.ndarray:
        identity = saturating_multiplier(scale_ratio(x, y))
        multiplier, shift = saturating_multiplier(float(x.scale[0]) * float(f32(alpha)) / float(y.scale[0]))
        value, sign = VALUES - x.zero, -1 if multiplier < 0 else 1
        negative = sign * requantized(value, abs(multiplier), shift)
        return np.where(value >= 0, requantized(value, *identity), negative) + y.zero

    return table


def absolute(x: Tensor, y: Tensor) -> np.ndarray:
    """ABS (elementwise.cc AbsEvalQuantized)."""
    value = np.abs(VALUES - x.zero)
    if x.scale[0] == y.scale[0]:
        return value + y.zero
    return requantized(value, *saturating_multiplier(scale_ratio(x, y))) + y.zero


def hard_swish(x: Tensor, y: Tensor) -> np.ndarray:
    """x * relu6(x + 3) / 6 in 16-bit fixed point (reference/hard_swish.h).

    Input scales of 768 and more overflow in TFLM, and outputs finer than 1/128 of the input are refused there.
    """
    fine = f32(1 / 128) * x.scale[0]
    y_multiplier, y_exponent = quantize_multiplier(float(fine / y.scale[0]))
    relu_multiplier, relu_exponent = quantize_multiplier(float(fine / f32(3 / 32768)))
    if y_exponent > 0:
        real = float(x.scale[0]) * (VALUES - x.zero)
        steps = round_half_away(real * np.clip(real + 3, 0, 6) / 6 / float(y.scale[0])) + y.zero
        return np.clip(steps, INT8_MIN, INT8_MAX).astype(np.int64)
    value = (VALUES.astype(np.int64) - x.zero) * 128
    preshift = _high_product_16(value, _upper_half(y_multiplier))
    gate = value
    if relu_exponent > 0:
        gate = np.clip(gate << (relu_exponent - 1), -32768, 32767)
    gate = _high_product_16(gate, _upper_half(relu_multiplier))
    if relu_exponent > 0:
        gate = np.clip(gate << 1, -32768, 32767)
    elif relu_exponent < 0:
        gate = divided_by_power_of_two(gate, -relu_exponent)
    gate = (gate + 32768) >> 1  # from [-1, 1] to [0, 1]
    product = np.trunc(gate * preshift / 32768).astype(np.int64)
    return divided_by_power_of_two(product, -y_exponent) + y.zero


def _upper_half(multiplier: int) -> int:
    """A 32-bit multiplier as a 16-bit one (common.h DownScaleInt32ToInt16Multiplier)."""
    return 32767 if multiplier >= 2**31 - 1 - 2**15 else (multiplier + 2**15) >> 16


def _high_product_16(a: np.ndarray, b: int) -> np.ndarray:
    """`high_product` for int16: a * b / 2**15, halves up."""
    return (a.astype(np.int64) * b + 2**14) >> 15


def logistic(x: Tensor, y: Tensor) -> np.ndarray:
    """LOGISTIC (integer_ops/logistic.h)."""
    if _beyond_tflm(x, y, (1 / 256, -128)):
        return tabulated(_logistic)(x, y)
    return _in_four_integer_bits(fixed_point.logistic, x, 23) - 128


def tanh(x: Tensor, y: Tensor) -> np.ndarray:
    """TANH (integer_ops/tanh.h)."""
    if _beyond_tflm(x, y, (1 / 128, 0)):
        return tabulated(_tanh)(x, y)
    return _in_four_integer_bits(fixed_point.tanh, x, 24)


def _beyond_tflm(x: Tensor, y: Tensor, grid: tuple[float, int]) -> bool:
    """Whether TFLM lacks this output's grid, or is wrong: from input scales of 8 on, it has 0 saturate as well."""
    return (float(y.scale[0]), y.zero) != grid or float(x.scale[0]) >= 8


def _in_four_integer_bits(function: Callable[[np.ndarray], np.ndarray], x: Tensor, shift: int) -> np.ndarray:
    """function(x) / 2**shift, x with 4 integer bits and the result with none. Where x nears 16, the result is at its
    ends (logistic_common.cc; quantization_util.cc CalculateInputRadius)."""
    multiplier, exponent = quantize_multiplier(float(x.scale[0]) * 2.0**27)
    value, radius = VALUES - x.zero, math.floor(15 * 2.0 ** (27 - exponent))
    within = np.abs(value) < radius
    raw = requantized(np.where(within, value, 0), multiplier, exponent)
    return np.where(within, divided_by_power_of_two(function(raw), shift), np.sign(value) * 512)


# ---- float functions ----


def tabulated(function: Callable[[np.ndarray], np.ndarray]) -> Table:
    """The table of a float32 function (common.h LUTPopulate)."""

    def table(x: Tensor, y: Tensor) -> np.ndarray:
        real = x.scale[0] * (VALUES - x.zero).astype(np.float32)
        inverse = f32(1) / y.scale[0]
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = round_half_away(function(real) * inverse).astype(np.float32)
        return np.clip(rounded + f32(y.zero), -1e9, 1e9).astype(np.int64)

    return table


def _rounded(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A float32 function by way of float64: correctly rounded, so the same on every machine."""

    def single(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return function(x.astype(np.float64)).astype(np.float32)

    return single


exp, expm1, _tanh = _rounded(np.exp), _rounded(np.expm1), _rounded(np.tanh)
erfc = _rounded(np.vectorize(math.erfc, otypes=[np.float64]))


def _logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) of float32."""
    with np.errstate(over="ignore"):
        return f32(1) / (f32(1) + exp(-x))


def elu(x: np.ndarray) -> np.ndarray:
    """x, or exp(x) - 1 below zero, of float32."""
    return np.where(x < 0, expm1(x), x)


def gelu(x: np.ndarray) -> np.ndarray:
    """x times the normal distribution's cumulative function, of float32."""
    return f32(0.5) * x * erfc(x * f32(-math.sqrt(0.5)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """`gelu` with tanh in place of erf, of float32."""
    cubic = x + f32(0.044715) * x * x * x
    return f32(0.5) * x * (f32(1) + _tanh(f32(math.sqrt(2 / math.pi)) * cubic))


def log_table(x: Tensor, y: Tensor) -> np.ndarray:
    """The smallest number where there is no logarithm (elementwise.cc LogLUTPrepare)."""
    lowest = f32(INT8_MIN - y.zero) * y.scale[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        log = _rounded(lambda real: np.where(real > 0, np.log(real), np.float64(lowest)))
        return tabulated(log)(x, y)
