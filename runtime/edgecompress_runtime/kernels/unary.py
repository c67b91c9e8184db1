"""One operand, element by element: float32 kernels here, int8 by way of `table`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgecompress_runtime.errors import UnsupportedOperatorError
from edgecompress_runtime.kernels.arithmetic import clamp, f32
from edgecompress_runtime.kernels.int8_table import TABLES, table_call
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, Prepare, call, prepares
from edgecompress_runtime.options import Options

SQRT_HALF, SQRT_2_OVER_PI = f32(math.sqrt(0.5)), f32(math.sqrt(2 / math.pi))


def absolute(x, y, count):
    for i in range(count):
        y[i] = abs(x[i])


def negate(x, y, count):
    for i in range(count):
        y[i] = -x[i]


def logical_not(x, y, count):
    for i in range(count):
        y[i] = x[i] == 0


def square_root(x, y, count):
    for i in range(count):
        y[i] = math.sqrt(x[i])


def reciprocal_square_root(x, y, count):
    for i in range(count):
        y[i] = f32(1) / math.sqrt(x[i])


def exponential(x, y, count):
    for i in range(count):
        y[i] = math.exp(x[i])


def logarithm(x, y, count):
    for i in range(count):
        y[i] = math.log(x[i])


def floor(x, y, count):
    for i in range(count):
        y[i] = np.floor(x[i])  # math.floor makes an integer of it


def logistic(x, y, count):
    for i in range(count):
        y[i] = f32(1) / (f32(1) + math.exp(-x[i]))


def tanh(x, y, count):
    for i in range(count):
        y[i] = math.tanh(x[i])


def elu(x, y, count):
    for i in range(count):
        y[i] = math.expm1(x[i]) if x[i] < 0 else x[i]


def gelu(x, y, count):
    for i in range(count):
        y[i] = f32(0.5) * x[i] * math.erfc(-x[i] * SQRT_HALF)


def gelu_tanh(x, y, count):
    for i in range(count):
        value = x[i]
        cubic = value + f32(0.044715) * value * value * value
        y[i] = f32(0.5) * value * (f32(1) + math.tanh(SQRT_2_OVER_PI * cubic))


def hard_swish(x, y, count):
    for i in range(count):
        y[i] = x[i] * clamp(x[i] + f32(3), f32(0), f32(6)) / f32(6)


def bounded(x, y, count, low, high):
    for i in range(count):
        y[i] = clamp(x[i], low, high)


def leaky_relu(x, y, count, alpha):
    for i in range(count):
        y[i] = x[i] if x[i] > 0 else x[i] * alpha


def gelu_kernel(options: Options) -> tuple:
    return (gelu_tanh if options.approximate else gelu,)


# kind -> (kernel, arguments after the count)
FLOAT: dict[str, Callable[[Options], tuple]] = {
    "ABS": lambda options: (absolute,),
    "NEG": lambda options: (negate,),
    "LOGICAL_NOT": lambda options: (logical_not,),
    "SQRT": lambda options: (square_root,),
    "RSQRT": lambda options: (reciprocal_square_root,),
    "EXP": lambda options: (exponential,),
    "LOG": lambda options: (logarithm,),
    "FLOOR": lambda options: (floor,),
    "LOGISTIC": lambda options: (logistic,),
    "TANH": lambda options: (tanh,),
    "ELU": lambda options: (elu,),
    "GELU": gelu_kernel,
    "HARD_SWISH": lambda options: (hard_swish,),
    "RELU": lambda options: (bounded, 0.0, math.inf),
    "RELU6": lambda options: (bounded, 0.0, 6.0),
    "RELU_N1_TO_1": lambda options: (bounded, -1.0, 1.0),
    "RELU_0_TO_1": lambda options: (bounded, 0.0, 1.0),
    "LEAKY_RELU": lambda options: (leaky_relu, float(options.alpha)),
}


def _prepare(kind: str) -> Prepare:
    def prepare(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
        x, (y,) = inputs[0], outputs
        if not x.is_int8:
            kernel, *rest = FLOAT[kind](options)
            return [call(kernel, x, y, x.size, *rest)]
        if kind not in TABLES:
            raise UnsupportedOperatorError(f"{kind} of int8")
        return table_call(x, y, TABLES[kind](x, y, options))

    return prepare


for _kind in FLOAT:
    prepares(_kind)(_prepare(_kind))
