"""CONV_2D for families with a block of their own: weights arranged for it, bias and scaling as records."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecompress_runtime.kernels.arithmetic import activation_range
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.plan import Tensor
from edgecompress_runtime.primitives.dsp_convolution import strip_convolution
from edgecompress_runtime.primitives.scaling import Scaling, scaling
from edgecompress_runtime.primitives.step import Scratch, Step

BANK_BYTES = 20_480  # for widened weights: larger ones are done in parts, each of which reads the input again


def dsp(inputs: Sequence[Any], outputs: Sequence[Tensor], options: Mapping[str, Any]) -> list[Step] | None:
    x, w, (y,) = inputs[0], inputs[1], outputs
    batch, height, width, channels = x.shape
    out_channels, kernel_h, kernel_w, depth = w.shape
    _, out_h, out_w, _ = y.shape
    stride = options["strideH"], options["strideW"]
    dilation = options.get("dilationHFactor") or 1, options.get("dilationWFactor") or 1
    if not x.is_int8 or w.data is None or batch != 1 or depth != channels or dilation[1] != 1 or out_channels < 2:
        return None
    pads = padding(options["padding"], x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
    scales = layer_scaling(inputs, y)
    if scales is None:
        return None
    pairs = channel_groups(out_channels, 2)
    column = -(-kernel_h * channels // 4) * 4
    weights = columns_of(w.data, column)
    if channels % 4:  # the strip holds them in plain order, widening takes bytes 0, 2, 1, 3
        weights = weights.reshape(out_channels, -1, 4)[:, :, [0, 2, 1, 3]].reshape(out_channels, -1)
    size = weights.shape[1]
    arranged = weights[pairs].reshape(-1, 2, size // 4, 4).transpose(0, 2, 1, 3)
    bank_pairs = max(min(BANK_BYTES // (4 * size), len(pairs) // 2), 1)
    parts = -(-(len(pairs) // 2) // bank_pairs)
    bank_pairs = -(-(len(pairs) // 2) // parts)
    columns = (out_w - 1) * stride[1] + kernel_w
    strip, bank = Scratch(2 * columns * column), Scratch(bank_pairs * size * 4)
    overlap = {x: trailing(x.shape, y.shape, stride[0], pads[0])} if parts == 1 else {}
    arguments = (x, arranged.reshape(-1), scales.records()[pairs].reshape(-1), y, strip, bank, x.shape[1:],
                 (kernel_h, kernel_w), y.shape[1:], stride, dilation[0], pads, x.zero, *activation_range(options, y),
                 bank_pairs * 2)  # fmt: skip
    return [Step(strip_convolution, arguments, overlap)]


def layer_scaling(inputs: Sequence[Any], y: Tensor) -> Scaling | None:
    """Of a convolution whose kernel adds up x * w without x's zero point: the bias makes up for it."""
    x, w, bias = inputs[0], inputs[1], bias_of(inputs)
    rows = w.data.reshape(w.shape[0], -1).astype(np.int64)
    values = (bias.data if isinstance(bias, Tensor) else bias).astype(np.int64).reshape(-1)
    folded = values - x.zero * rows.sum(1)
    largest = np.abs(folded) + 128 * np.abs(rows).sum(1)  # of any partial sum, too
    return scaling(folded, largest, *channel_multipliers(x, w, y), y.zero)


def columns_of(weights: np.ndarray, column: int) -> np.ndarray:
    """int8 [o, kh, kw, c] -> [o, kw * column]: for each column of the window its kh * c weights, then zeros."""
    o, kh, kw, c = weights.shape
    result = np.zeros((o, kw, column), np.int8)
    result[:, :, : kh * c] = weights.transpose(0, 2, 1, 3).reshape(o, kw, kh * c)
    return result.reshape(o, -1)


def channel_groups(channels: int, group: int) -> np.ndarray:
    """Channel numbers in groups of `group`; the last group ends with the last channel.

    >>> channel_groups(5, 2)
    array([0, 1, 2, 3, 3, 4])
    """
    starts = [min(start, channels - group) for start in range(0, channels, group)]
    return (np.array(starts)[:, None] + np.arange(group)).reshape(-1)


def trailing(x_shape: Sequence[int], y_shape: Sequence[int], stride: int, pad: int) -> int:
    """Bytes by which y must start in front of x for each row of y to be written behind the rows still to be read."""
    _, _, width, channels = x_shape
    _, out_h, out_w, out_channels = y_shape
    distances = [row * out_w * out_channels - max(row * stride - pad, 0) * width * channels for row in range(1, out_h)]
    return max([0, *distances])
