"""CONV_2D for families with blocks of their own: weights in the order in which a block reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.layer import Layer, convolution_layer
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.step import Scratch, Step
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
        """None for what `convolution_layer` and `of` have none for."""
        layer = convolution_layer(inputs, outputs, options)
        return None if layer is None else self.of(layer)

    def of(self, layer: Layer) -> list[Step] | None:
        """None for fewer output channels than a block has, and weights that the arithmetic can't do."""
        out_channels, kernel_h, kernel_w, channels = layer.weights.shape
        if out_channels < self.channels or layer.weights.min() < self.least:
            return None
        stride, out_w = layer.stride, layer.out[1]
        column = -(-kernel_h * channels // self.aligned) * self.aligned
        groups = channel_groups(out_channels, self.channels)
        weights = columns_of(layer.weights, column)
        if self.widened and channels % 4:  # the strip holds these in plain order
            weights = weights.reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(out_channels, -1)
        size, count = weights.shape[1], len(groups) // self.channels
        run = self.run or size
        arranged = weights[groups].reshape(count, self.channels, size // run, run).transpose(0, 2, 1, 3).reshape(-1)
        held = self.coded(arranged) if self.coded else None
        banked = self.widened or held is not None
        parts = -(-count // max(BANK_BYTES // (self.channels * self.element * size), 1)) if banked else 1
        bank_groups = -(-count // parts)
        strip = Scratch(((out_w - 1) * stride[1] + kernel_w) * column * self.element)
        bank = Scratch(bank_groups * self.channels * size * self.element if banked else 0)
        # parts read the input again, after the first of them has written
        shapes = (1, *layer.size), (1, *layer.out)
        overlap = {layer.x: trailing(*shapes, stride[0], layer.pads[0])} if parts == 1 else {}
        tensors = layer.x, held.operand() if held else arranged, self.records(layer.scales, groups).reshape(-1), layer.y
        geometry = layer.size, (kernel_h, kernel_w), layer.out, stride, layer.dilation, layer.pads
        arguments = tensors, (strip, bank), geometry, layer.x.zero, layer.bounds, bank_groups
        return [held.step(arguments, overlap) if held else Step(self.kernel, arguments, overlap)]


def channel_records(scales: Scaling, groups: np.ndarray) -> np.ndarray:
    """int32 [channels, 4]: `Scaling.records` of the channels with these numbers."""
    return scales.records()[groups]


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
