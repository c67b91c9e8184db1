"""Layers whose channels are of unlike sizes: no channel keeps the others from fast kernels.

Of a channel that all inputs give one value, weights and sums are zero, and its bias says the value. One with a factor
(s_x * s_w / s_y) of 1 or more gets larger weights, where these fit, and a factor below 1. What no fast kernel holds
then is computed by `channels_apart`, channel by channel, behind the kernel that computes the others. Outputs stay what
`execute` gives, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.kernels.accumulator import begun, extended, stored
from edgecompress_runtime.kernels.arithmetic import Array, Values, activation_range, i32, requantized
from edgecompress_runtime.kernels.convolution import channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import ConvolutionOptions, DepthwiseOptions, FullyConnectedOptions, Options
from edgecompress_runtime.plan import Tensor

OUTPUTS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}  # the axis of weights that has output channels
QUARTER = 0.25  # the factor of a channel of one value, whose bias is exact
MOST_DOWN, SUMS = 22, 2**29  # the fast form (scaling.py) holds sums below this with any zero point, shifted by so much
NORMAL = np.finfo(np.float32).tiny, np.finfo(np.float32).max


@dataclass(frozen=True, eq=False)
class LayerChannels:
    """The constants of a layer of int8. weights: int8, as stored; rows: the same, [channels, weights of one]; scale:
    float32 [channels]; bias: int64 [channels]."""

    kind: str
    inputs: tuple[Any, ...]
    y: Tensor
    options: Any
    rows: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    def multipliers(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 [channels]: multipliers and shifts."""
        x, w = self.inputs[:2]
        found = channel_multipliers(x, replace(w, scale=self.scale), self.y)
        return found[0].astype(np.int64), found[1].astype(np.int64)

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 [channels]: the least and the largest sum that any input gives, bias included."""
        zero, positive, negative = self.inputs[0].zero, np.maximum(self.rows, 0), np.minimum(self.rows, 0)
        up, down = positive.sum(1, dtype=np.int64), negative.sum(1, dtype=np.int64)
        low, high = -128 - zero, 127 - zero
        return self.bias + up * low + down * high, self.bias + up * high + down * low

    def stored_values(self, sums: np.ndarray) -> np.ndarray:
        """What a channel holds for a sum of its own, int64 [channels]."""
        low, high = activation_range(self.options, self.y)
        return np.clip(requantized(sums, *self.multipliers()) + self.y.zero, low, high)

    def with_constants(self, rows: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> LayerChannels:
        """The layer with these in place of its own."""
        x, w, *rest = self.inputs
        axis = OUTPUTS[self.kind]
        data = np.ascontiguousarray(rows.T if axis else rows).reshape(w.shape)
        weights = replace(w, data=data, scale=scale, zero_point=np.zeros(len(scale), np.int32), axis=axis)
        tensor = Tensor(f"{w.name} bias", bias.shape, np.dtype(np.int32), data=bias.astype(np.int32))
        return replace(self, inputs=(x, weights, tensor, *rest[1:]), rows=rows, scale=scale, bias=bias)


def layer_channels(
    kind: str, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
) -> LayerChannels | None:
    """None for other operators and types, and weights that are computed or have a zero point."""
    if kind not in OUTPUTS:
        return None
    x, w, bias, (y,) = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None, outputs
    if not (x.is_int8 and y.is_int8) or w.data is None or w.zero_point.any() or (bias and bias.data is None):
        return None
    channels = w.shape[OUTPUTS[kind]]
    rows = w.data.reshape(-1, channels).T if OUTPUTS[kind] else w.data.reshape(channels, -1)
    values = np.zeros(channels) if bias is None else bias.data.reshape(-1)
    scale = np.broadcast_to(w.scale, channels)
    return LayerChannels(kind, tuple(inputs), y, options, rows, scale, values.astype(np.int64))


def simple_channels(layer: LayerChannels) -> LayerChannels:
    """The layer with constants that give the same outputs and that fast kernels hold, as far as there are such."""
    multiplier, shift = layer.multipliers()
    low, high = layer.ends()
    # what wraps around 32 bits in the ordinary kernel is left to it
    fits = np.maximum(np.abs(low), np.abs(high)) * 2.0 ** np.maximum(shift, 0) < 2.0**31
    values = layer.stored_values(np.where(fits, low, 0))
    fixed = fits & (multiplier >= 0) & (values == layer.stored_values(np.where(fits, high, 0)))
    fixed &= layer.rows.any(1) | (shift >= 0) | _is_hard(shift, low, high)
    quarter = np.float32(QUARTER * float(layer.y.scale[0]) / float(layer.inputs[0].scale[0]))
    if not NORMAL[0] <= quarter <= NORMAL[1]:
        fixed[:] = False
    times = np.where(fixed, 1, _growth(layer, shift))
    if not fixed.any() and (times == 1).all():
        return layer
    rows = np.where(fixed[:, None], 0, layer.rows * times.astype(np.int8)[:, None])
    scale = np.where(fixed, quarter, layer.scale / times.astype(np.float32)).astype(np.float32)
    bias = np.where(fixed, (values - layer.y.zero) * int(1 / QUARTER), layer.bias * times)
    return layer.with_constants(rows.astype(np.int8), scale, bias)


def _growth(layer: LayerChannels, shift: np.ndarray) -> np.ndarray:
    """By what a channel's weights grow, so that its factor falls below 1: sums that are shifted up in the end are the
    same as sums of so much larger weights. Weights of few values stay as they are, for kernels made for these."""
    if (shift <= 0).all():
        return np.ones(len(shift), np.int64)
    times = np.int64(1) << np.clip(shift, 0, 7)
    largest = np.abs(layer.rows.astype(np.int16)).max(1, initial=0)
    grows = (shift > 0) & (largest > 0) & (largest * times <= 127) & (np.abs(layer.bias) * times < 2**31)
    grows &= layer.scale / times >= NORMAL[0]
    if layer.kind != "DEPTHWISE_CONV_2D" and largest.max(initial=0) <= 1:
        grows[:] = False
    return np.where(grows, times, 1)


def _is_hard(shift: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (shift > 0) | (shift < -MOST_DOWN) | (np.maximum(np.abs(low), np.abs(high)) >= SUMS)


def without_hard_channels(layer: LayerChannels) -> tuple[LayerChannels, Step] | None:
    """The layer with a zero for each channel that fast kernels may not hold, and a step that computes these; None where
    there are none, or no others."""
    hard = _is_hard(layer.multipliers()[1], *layer.ends())
    if not hard.any() or hard.all():
        return None
    rows = np.where(hard[:, None], 0, layer.rows).astype(np.int8)
    plain = np.flatnonzero(~hard)[0]
    scale, bias = np.where(hard, layer.scale[plain], layer.scale), np.where(hard, 0, layer.bias)
    return layer.with_constants(rows, scale, bias), _step_of(layer, np.flatnonzero(hard))


def channels_apart(
    x: Array, w: Array, channels: Values, y: Array, shapes: Values, window: Values, levels: Values
) -> None:
    """`convolution.conv_2d` of some channels. channels: also of each its number in y, and the first channel of x that
    it reads. shapes: of x, these channels' weights and y."""
    (batches, height, width, depth), (count, kernel_h, kernel_w, inner), (_, out_h, out_w, outputs) = shapes
    strides, dilations, pads = window
    numbers, firsts = channels[3], channels[4]
    for n in range(batches):
        for out_y in range(out_h):
            top = i32(out_y * strides[0] - pads[0])
            for out_x in range(out_w):
                left = i32(out_x * strides[1] - pads[1])
                pixel = i32(((n * out_h + out_y) * out_w + out_x) * outputs)
                for o in range(count):
                    acc = begun(channels, o, levels)
                    for ky in range(kernel_h):
                        in_y = i32(top + ky * dilations[0])
                        if in_y < 0 or in_y >= height:
                            continue
                        for kx in range(kernel_w):
                            in_x = i32(left + kx * dilations[1])
                            if in_x < 0 or in_x >= width:
                                continue
                            source = i32(((n * height + in_y) * width + in_x) * depth + firsts[o])
                            weights = i32(((o * kernel_h + ky) * kernel_w + kx) * inner)
                            for c in range(inner):
                                acc = extended(acc, x, i32(source + c), w, i32(weights + c), levels)
                    y[i32(pixel + numbers[o])] = stored(acc, channels, o, levels)


def _step_of(layer: LayerChannels, chosen: np.ndarray) -> Step:
    (x, w), y, options, outputs = layer.inputs[:2], layer.y, layer.options, len(layer.rows)
    if isinstance(options, FullyConnectedOptions):
        count = x.size // w.shape[1]
        shapes: tuple[Any, ...] = (1, 1, count, w.shape[1]), (len(chosen), 1, 1, w.shape[1]), (1, 1, count, outputs)
        window: tuple[Any, ...] = (1, 1), (1, 1), (0, 0)
        groups = 1
    else:
        assert isinstance(options, (ConvolutionOptions, DepthwiseOptions))
        inner = 1 if OUTPUTS[layer.kind] else w.shape[3]
        shapes, groups = (x.shape, (len(chosen), *w.shape[1:3], inner), y.shape), x.shape[3] // inner
        pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], options.strides, options.dilations)
        window = options.strides, options.dilations, pads
    firsts = chosen // (outputs // groups) * shapes[1][3]
    multiplier, shift = (field[chosen].astype(np.int32) for field in layer.multipliers())
    channels = layer.bias[chosen].astype(np.int32), multiplier, shift, chosen.astype(np.int32), firsts.astype(np.int32)
    weights = np.ascontiguousarray(layer.rows[chosen]).reshape(-1)
    levels = x.zero, y.zero, *activation_range(options, y)
    return Step(channels_apart, (x, weights, channels, y, shapes, window, levels))
