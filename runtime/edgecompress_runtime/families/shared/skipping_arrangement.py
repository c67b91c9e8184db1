"""When zeros are skipped, and how the operands of the kernels that do it are arranged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.arranged_convolution import columns_of, layer_scaling, trailing
from edgecompress_runtime.families.shared.arranged_dense import dense_layer
from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.skipping import PIXELS, Lists, SkippingKind
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.kernels.arithmetic import activation_range
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import ConvolutionOptions, FullyConnectedOptions, Options
from edgecompress_runtime.plan import Tensor

FASTER = 1.25  # than with all weights, by the instructions below
LARGER = 4.0  # than coded weights, at most
DECODING = 6.5  # instructions of a coded weight, once an inference


@dataclass(frozen=True)
class Cost:
    """A family's lists and their kernels. entry, pixel: instructions of an entry, and of an entry and pixel."""

    lists: Lists
    kernels: Mapping[SkippingKind, Callable[..., None]]
    entry: float
    pixel: float


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


def fully_connected_layer(
    inputs: Sequence[Any], outputs: Sequence[Tensor], options: FullyConnectedOptions
) -> Layer | None:
    """The layer as a convolution of one row of pixels; None for what `dense_layer` has none for."""
    if (found := dense_layer(inputs, outputs, options)) is None:
        return None
    units, depth = found.weights.shape
    weights = found.weights.reshape(units, 1, 1, depth)
    size, out = (1, found.rows, depth), (1, found.rows, units)
    return Layer(found.x, found.y, weights, found.scales, found.bounds, size, out)


@dataclass(frozen=True)
class Skipping:
    """usual: the family's arrangement, with all weights; product: instructions of one. layer: of its kind of operator.
    costs: of the family's lists."""

    usual: Any
    product: float
    layer: Callable[..., Layer | None]
    costs: tuple[Cost, ...]

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
        """The usual steps unless a list is clearly faster, no larger than the weights, and not much larger than they
        are when coded."""
        steps: list[Step] | None = self.usual(inputs, outputs, options)
        layer = self.layer(inputs, outputs, options)
        if layer is None:
            return steps
        saved = sum(step.saved for step in steps or ())
        room = min(layer.weights.size, LARGER * (layer.weights.size - saved))
        product = self.product + (DECODING / (layer.out[0] * layer.out[1]) if saved else 0.0)
        most = product * layer.weights.size / FASTER
        found = [_step(layer, cost, most, room) for cost in self.costs]
        return min((f for f in found if f), key=lambda f: f[0], default=(0.0, steps))[1]


def _step(layer: Layer, cost: Cost, most: float, room: float) -> tuple[float, list[Step]] | None:
    """(instructions a pixel, step), or None where they are more than `most`, or the list more than `room` bytes."""
    lists, (channels, kernel_h, kernel_w, depth) = cost.lists, layer.weights.shape
    inside = layer.pointwise and lists.element == 1 and not (lists.whole and depth % lists.inputs)
    column = -(-kernel_h * depth // lists.aligned) * lists.aligned
    weights = columns_of(layer.weights, column)
    if lists.element == 2 and depth % 4:  # the strip holds these in plain order (dsp_blocks.copy)
        weights = weights.reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(channels, -1)
    out_h, out_w, _ = layer.out
    pixels = next(p for p in PIXELS if p <= (out_h * out_w if inside else out_w))
    each = cost.entry / pixels + cost.pixel
    if np.count_nonzero(weights) / lists.inputs * each > most:  # with no room left in any entry
        return None
    if (found := lists.listed(weights, layer.scales)) is None:
        return None
    time, made = found[0] * each, found[1]
    if time > most or made.size > room:
        return None
    kernel, tensors = cost.kernels[pixels, inside], (layer.x, made, layer.y)
    if inside:
        return time, [Step(kernel, (tensors, (out_h * out_w, depth, channels), layer.bounds), skips=True)]
    strip = Scratch(((out_w - 1) * layer.stride[1] + kernel_w) * column * lists.element)
    geometry = layer.size, (kernel_h, kernel_w), layer.out, layer.stride, layer.dilation, layer.pads
    overlap = {layer.x: trailing((1, *layer.size), (1, *layer.out), layer.stride[0], layer.pads[0])}
    return time, [Step(kernel, (tensors, strip, geometry, layer.x.zero, layer.bounds), overlap, skips=True)]
