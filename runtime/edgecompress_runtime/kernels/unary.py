"""Operators of one operand, element by element: float32 kernels here, int8 by `int8_table`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.kernels import int8_table
from edgecompress_runtime.kernels.arithmetic import Array, Number, clamp, f32, scale_ratio
from edgecompress_runtime.kernels.int8_table import Table, table_call, tabulated
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, Prepare, call, prepares
from edgecompress_runtime.options import GeluOptions, LeakyReluOptions
from edgecompress_runtime.plan import Tensor

SQRT_HALF, SQRT_2_OVER_PI = f32(math.sqrt(0.5)), f32(math.sqrt(2 / math.pi))


def absolute(x: Array, y: Array, count: Number) -> None:
    """y = |x|."""
    for i in range(count):
        y[i] = abs(x[i])


def negate(x: Array, y: Array, count: Number) -> None:
    """y = -x."""
    for i in range(count):
        y[i] = -x[i]


def logical_not(x: Array, y: Array, count: Number) -> None:
    """y = 1 where x is 0, else 0."""
    for i in range(count):
        y[i] = x[i] == 0


def square_root(x: Array, y: Array, count: Number) -> None:
    """y = x ** 0.5, NaN below zero."""
    for i in range(count):
        y[i] = math.sqrt(x[i])


def reciprocal_square_root(x: Array, y: Array, count: Number) -> None:
    """y = x ** -0.5."""
    for i in range(count):
        y[i] = f32(1) / math.sqrt(x[i])


def exponential(x: Array, y: Array, count: Number) -> None:
    """y = e ** x."""
    for i in range(count):
        y[i] = math.exp(x[i])


def logarithm(x: Array, y: Array, count: Number) -> None:
    """y = ln(x)."""
    for i in range(count):
        y[i] = math.log(x[i])


def floor(x: Array, y: Array, count: Number) -> None:
    """The largest whole numbers that are not above x."""
    for i in range(count):
        y[i] = np.floor(x[i])  # math.floor makes an integer of it


def logistic(x: Array, y: Array, count: Number) -> None:
    """y = 1 / (1 + e ** -x)."""
    for i in range(count):
        y[i] = f32(1) / (f32(1) + math.exp(-x[i]))


def tanh(x: Array, y: Array, count: Number) -> None:
    """y = tanh(x)."""
    for i in range(count):
        y[i] = math.tanh(x[i])


def elu(x: Array, y: Array, count: Number) -> None:
    """y = x, or e ** x - 1 below zero."""
    for i in range(count):
        y[i] = math.expm1(x[i]) if x[i] < 0 else x[i]


def gelu(x: Array, y: Array, count: Number) -> None:
    """y = x times the normal distribution's cumulative function at x."""
    for i in range(count):
        y[i] = f32(0.5) * x[i] * math.erfc(-x[i] * SQRT_HALF)


def gelu_tanh(x: Array, y: Array, count: Number) -> None:
    """`gelu` with tanh in place of erf."""
    for i in range(count):
        value = x[i]
        cubic = value + f32(0.044715) * value * value * value
        y[i] = f32(0.5) * value * (f32(1) + math.tanh(SQRT_2_OVER_PI * cubic))


def hard_swish(x: Array, y: Array, count: Number) -> None:
    """y = x * relu6(x + 3) / 6."""
    for i in range(count):
        y[i] = x[i] * clamp(x[i] + f32(3), f32(0), f32(6)) / f32(6)


def bounded(x: Array, y: Array, count: Number, low: Number, high: Number) -> None:
    """y is x within low and high."""
    for i in range(count):
        y[i] = clamp(x[i], low, high)


def leaky_relu(x: Array, y: Array, count: Number, alpha: Number) -> None:
    """y = x, or alpha * x below zero."""
    for i in range(count):
        y[i] = x[i] if x[i] > 0 else x[i] * alpha


# ---- preparation ----


@dataclass(frozen=True)
class Function:
    """kernel: of float32; extra: its arguments after the count. table: of int8, None where there is none."""

    kernel: Callable[..., None]
    table: Table | None = None
    extra: tuple[float, ...] = ()


def prepared(kind: str, function: Function, x: Tensor, y: Tensor) -> list[Call]:
    """y = function(x), element by element. Raises UnsupportedOperatorError for int8 without a table."""
    if not x.is_int8:
        return [call(function.kernel, x, y, x.size, *function.extra)]
    if function.table is None:
        raise UnsupportedOperatorError(f"{kind} of int8")
    return table_call(x, y, function.table(x, y))


FUNCTIONS = {
    "ABS": Function(absolute, int8_table.absolute),
    "NEG": Function(negate),
    "LOGICAL_NOT": Function(logical_not),
    "SQRT": Function(square_root),
    "RSQRT": Function(reciprocal_square_root),
    "EXP": Function(exponential, tabulated(int8_table.exp)),
    "LOG": Function(logarithm, int8_table.log_table),
    "FLOOR": Function(floor),
    "LOGISTIC": Function(logistic, int8_table.logistic),
    "TANH": Function(tanh, int8_table.tanh),
    "ELU": Function(elu, tabulated(int8_table.elu)),
    "HARD_SWISH": Function(hard_swish, int8_table.hard_swish),
    "RELU": Function(bounded, int8_table.relu(0.0, None, scale_ratio), (0.0, math.inf)),
    "RELU6": Function(bounded, int8_table.relu(0.0, 6.0), (0.0, 6.0)),
    "RELU_N1_TO_1": Function(bounded, int8_table.relu(-1.0, 1.0), (-1.0, 1.0)),
    "RELU_0_TO_1": Function(bounded, int8_table.relu(0.0, 1.0), (0.0, 1.0)),
}
GELU = {False: Function(gelu, tabulated(int8_table.gelu)), True: Function(gelu_tanh, tabulated(int8_table.gelu_tanh))}


def _prepare(kind: str) -> Prepare:
    return lambda inputs, outputs, options: prepared(kind, FUNCTIONS[kind], inputs[0], outputs[0])


for _kind in FUNCTIONS:
    prepares(_kind)(_prepare(_kind))


@prepares("GELU")
def _prepare_gelu(inputs: Inputs, outputs: Outputs, options: GeluOptions) -> list[Call]:
    return prepared("GELU", GELU[bool(options.approximate)], inputs[0], outputs[0])


@prepares("LEAKY_RELU")
def _prepare_leaky_relu(inputs: Inputs, outputs: Outputs, options: LeakyReluOptions) -> list[Call]:
    alpha = float(options.alpha)
    return prepared("LEAKY_RELU", Function(leaky_relu, int8_table.leaky_relu(alpha), (alpha,)), inputs[0], outputs[0])
