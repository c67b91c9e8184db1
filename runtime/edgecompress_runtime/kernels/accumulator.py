"""Sums of products with a bias, so that one kernel body serves int8 and float32 layers.

A layer of int8 hands in, as tuples, its channels' (bias, multipliers, shifts) and its levels (zero point of x, zero
point of y, lowest and highest y); one of float32 (bias,) and (lowest, highest y); one of int16 activations (bias of
int64, multipliers, shifts) and (lowest, highest y). Numba chooses by the type of the bias and of the accumulator: it
compiles what an @overload below returns, and never runs the plain function of that name.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import types
from numba.extending import overload

from edgecompress_runtime.kernels.arithmetic import Array, Number, Values, clamp, f32, i32, i64, requantize
from edgecompress_runtime.kernels.int16_arithmetic import requantize_wide

ONLY_COMPILED = "this function exists in compiled kernels alone"


def begun(channels: Values, o: Number, levels: Values) -> Number:
    """The accumulator of channel `o`: its bias, or zero for float32, where the bias comes last."""
    raise AssertionError(ONLY_COMPILED)


def extended(acc: Number, x: Array, at: Number, w: Array, weight: Number, levels: Values) -> Number:
    """acc + (x[at] - zero point) * w[weight]."""
    raise AssertionError(ONLY_COMPILED)


def extended_by(acc: Number, value: Number, w: Array, weight: Number, levels: Values) -> Number:
    """acc + (value - zero point) * w[weight], for a kernel that reads the input before the weight."""
    raise AssertionError(ONLY_COMPILED)


def stored(acc: Number, channels: Values, o: Number, levels: Values) -> Number:
    """What y holds for the sum of channel `o`."""
    raise AssertionError(ONLY_COMPILED)


@overload(begun, inline="always")
def _begun(channels: Values, o: Number, levels: Values) -> Callable[..., Number]:
    def int8(channels: Values, o: Number, levels: Values) -> Number:
        return i32(channels[0][o])

    def int16(channels: Values, o: Number, levels: Values) -> Number:
        return i64(channels[0][o])

    def real(channels: Values, o: Number, levels: Values) -> Number:
        return f32(0)

    return {types.int32: int8, types.int64: int16, types.float32: real}[channels.types[0].dtype]


@overload(extended, inline="always")
def _extended(acc: Number, x: Array, at: Number, w: Array, weight: Number, levels: Values) -> Callable[..., Number]:
    def int8(acc: Number, x: Array, at: Number, w: Array, weight: Number, levels: Values) -> Number:
        value = i32(x[at] - levels[0])
        return i32(acc + i32(w[weight]) * value)

    def int16(acc: Number, x: Array, at: Number, w: Array, weight: Number, levels: Values) -> Number:
        return i64(acc + i64(i32(w[weight]) * i32(x[at])))

    def real(acc: Number, x: Array, at: Number, w: Array, weight: Number, levels: Values) -> Number:
        return acc + w[weight] * x[at]

    return {types.int32: int8, types.int64: int16, types.float32: real}[acc]


@overload(extended_by, inline="always")
def _extended_by(acc: Number, value: Number, w: Array, weight: Number, levels: Values) -> Callable[..., Number]:
    def int8(acc: Number, value: Number, w: Array, weight: Number, levels: Values) -> Number:
        return i32(acc + i32(w[weight]) * i32(value - levels[0]))

    def int16(acc: Number, value: Number, w: Array, weight: Number, levels: Values) -> Number:
        return i64(acc + i64(i32(w[weight]) * i32(value)))

    def real(acc: Number, value: Number, w: Array, weight: Number, levels: Values) -> Number:
        return acc + w[weight] * value

    return {types.int32: int8, types.int64: int16, types.float32: real}[acc]


@overload(stored, inline="always")
def _stored(acc: Number, channels: Values, o: Number, levels: Values) -> Callable[..., Number]:
    def int8(acc: Number, channels: Values, o: Number, levels: Values) -> Number:
        scaled = i32(requantize(acc, channels[1][o], channels[2][o]) + levels[1])
        return clamp(scaled, levels[2], levels[3])

    def int16(acc: Number, channels: Values, o: Number, levels: Values) -> Number:
        return clamp(requantize_wide(acc, channels[1][o], channels[2][o]), levels[0], levels[1])

    def real(acc: Number, channels: Values, o: Number, levels: Values) -> Number:
        return clamp(acc + channels[0][o], levels[0], levels[1])

    return {types.int32: int8, types.int64: int16, types.float32: real}[acc]
