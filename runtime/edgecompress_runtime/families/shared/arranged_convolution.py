"""CONV_2D for families with blocks of their own: weights in the order in which a block reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.scaling import Scaling, scaling
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.kernels.arithmetic import activation_range
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import ConvolutionOptions
from edgecompress_runtime.plan import Tensor

BANK_BYTES = 20_480  # for widened weights: larger ones are done in parts, each of which reads the input again


@dataclass(frozen=True)
class Arrangement:
    """How a family's kernel wants its operands.

    run: weights of a channel that follow one another before those of its neighbour; 0: all. element, aligned: of
    the strip (strip_convolution.Blocks). widened: weights pass through a bank, four bytes as bytes 0, 2, 1, 3.
    coded: for weights that are coded in flash; None to have them plain. channels: of a block. least: the smallest
    weight that the arithmetic can do.
    """

    kernel: Callable[..., None]
    run: int
    element: int
    aligned: int
    widened: bool
    records: Callable[[Scaling, np.ndarray], np.ndarray]
    coded: Coded | None
    channels: int = 2
    least: int = -128

    def __call__(
        self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: ConvolutionOptions
    ) -> list[Step] | None:
        """None for what the blocks can't do: groups, dilated columns, batches, fewer output channels than theirs."""
        x, w, (y,) = inputs[0], inputs[1], outputs
        if not x.is_int8 or w.data is None:
            return None
        (out_channels, kernel_h, kernel_w, depth), (batch, _, _, channels) = w.shape, x.shape
        stride = options.strides
        dilation = options.dilations
        if batch != 1 or depth != channels or dilation[1] != 1 or out_channels < self.channels:
            return None
        if w.data.min() < self.least or (scales := layer_scaling(inputs, y)) is None:
            return None
        pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
        column = -(-kernel_h * channels // self.aligned) * self.aligned
        groups = channel_groups(out_channels, self.channels)
        weights = columns_of(w.data, column)
        if self.widened and channels % 4:  # the strip holds these in plain order
            weights = weights.reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(out_channels, -1)
        size, count = weights.shape[1], len(groups) // self.channels
        run = self.run or size
        arranged = weights[groups].reshape(count, self.channels, size // run, run).transpose(0, 2, 1, 3).reshape(-1)
        held = self.coded(arranged) if self.coded else None
        banked = self.widened or held is not None
        parts = -(-count // max(BANK_BYTES // (self.channels * self.element * size), 1)) if banked else 1
        bank_groups = -(-count // parts)
        strip = Scratch(((y.shape[2] - 1) * stride[1] + kernel_w) * column * self.element)
        bank = Scratch(bank_groups * self.channels * size * self.element if banked else 0)
        # parts read the input again, after the first of them has written
        overlap = {x: trailing(x.shape, y.shape, stride[0], pads[0])} if parts == 1 else {}
        tensors = x, held.operand() if held else arranged, self.records(scales, groups).reshape(-1), y
        geometry = x.shape[1:], (kernel_h, kernel_w), y.shape[1:], stride, dilation[0], pads
        arguments = tensors, (strip, bank), geometry, x.zero, activation_range(options, y), bank_groups
        return [held.step(arguments, overlap) if held else Step(self.kernel, arguments, overlap)]


def channel_records(scales: Scaling, groups: np.ndarray) -> np.ndarray:
    """int32 [channels, 4]: `Scaling.records` of the channels with these numbers."""
    return scales.records()[groups]


def layer_scaling(inputs: Sequence[Any], y: Tensor) -> Scaling | None:
    """The scaling of a convolution whose kernel adds up x * w without x's zero point: the bias makes up for it."""
    x, w, bias = inputs[0], inputs[1], bias_of(inputs, y)
    rows = w.data.reshape(w.shape[0], -1).astype(np.int64)
    values = np.asarray(bias.data if isinstance(bias, Tensor) else bias).astype(np.int64).reshape(-1)
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
