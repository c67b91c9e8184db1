"""When zeros are skipped or sums looked up, and how the operands of the kernels that do it are arranged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.arranged_convolution import columns_of, trailing
from edgecompress_runtime.families.shared.layer import Layer
from edgecompress_runtime.families.shared.skipping import PIXELS, Lists, SkippingKind
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.sum_tables_arrangement import looked_up
from edgecompress_runtime.options import Options
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


@dataclass(frozen=True)
class Skipping:
    """usual: the family's arrangement, with all weights; product: instructions of one. layer: of its kind of operator.
    costs: of the family's lists. tables: instructions of its look-ups, as a ratio to a Cortex-M4's; 0: it has none."""

    usual: Any
    product: float
    layer: Callable[..., Layer | None]
    costs: tuple[Cost, ...]
    tables: float

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
        """The usual steps, or look-ups where these are faster, unless a list is clearly faster, no larger than the
        weights, and not much larger than they are when coded."""
        steps: list[Step] | None = self.usual(inputs, outputs, options)
        layer = self.layer(inputs, outputs, options)
        if layer is None:
            return steps
        size = layer.weights.size - sum(step.saved for step in steps or ())
        decoding = DECODING / (layer.out[0] * layer.out[1]) if size < layer.weights.size else 0.0
        time = (self.product + decoding) * layer.weights.size
        tables = looked_up(layer) if self.tables else None
        if tables and tables.time * self.tables < time:
            steps, time, size = [tables.step], tables.time * self.tables, tables.codes
        most, room = time / FASTER, min(layer.weights.size, LARGER * size)
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
