"""What CONV_2D and FULLY_CONNECTED have in common: a convolution with constant weights, ready for kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.scaling import Scaling, scaling
from edgecompress_runtime.kernels.arithmetic import activation_range
from edgecompress_runtime.kernels.convolution import bias_of, channel_multipliers
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import ConvolutionOptions
from edgecompress_runtime.plan import Tensor


@dataclass(frozen=True, eq=False)
class Layer:
    """weights: int8 [channels, kernel_h, kernel_w, inputs]. size, out: [height, width, channels]."""

    x: Tensor
    y: Tensor
    weights: np.ndarray
    scales: Scaling
    bounds: tuple[int, int]
    size: tuple[int, ...]
    out: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    dilation: int = 1
    pads: tuple[int, int] = (0, 0)

    @property
    def pointwise(self) -> bool:
        """Whether pixel for pixel an output's window is the input of the same place."""
        return self.weights.shape[1:3] == (1, 1) and self.stride == (1, 1) and self.size[:2] == self.out[:2]


def convolution_layer(inputs: Sequence[Any], outputs: Sequence[Tensor], options: ConvolutionOptions) -> Layer | None:
    """None for groups, dilated columns and batches."""
    x, w, (y,) = inputs[0], inputs[1], outputs
    if not x.is_int8 or w.data is None or x.shape[0] != 1 or w.shape[3] != x.shape[3]:
        return None
    stride = options.strides
    dilation = options.dilations
    if dilation[1] != 1 or (scales := layer_scaling(inputs, y)) is None:
        return None
    pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
    return Layer(
        x, y, w.data, scales, activation_range(options, y), x.shape[1:], y.shape[1:], stride, dilation[0], pads
    )


def layer_scaling(inputs: Sequence[Any], y: Tensor) -> Scaling | None:
    """The scaling of a convolution whose kernel adds up x * w without x's zero point: the bias makes up for it."""
    x, w, bias = inputs[0], inputs[1], bias_of(inputs, y)
    rows = w.data.reshape(w.shape[0], -1).astype(np.int64)
    values = np.asarray(bias.data if isinstance(bias, Tensor) else bias).astype(np.int64).reshape(-1)
    folded = values - x.zero * rows.sum(1)
    largest = np.abs(folded) + 128 * np.abs(rows).sum(1)  # of any partial sum, too
    return scaling(folded, largest, *channel_multipliers(x, w, y), y.zero)
