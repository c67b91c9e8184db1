"""FULLY_CONNECTED on top of a family's blocks: one input row by four output channels a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.arranged_convolution import Arrangement, channel_groups
from edgecompress_runtime.families.shared.coding import Coded
from edgecompress_runtime.families.shared.decoding import call_bytes
from edgecompress_runtime.families.shared.layer import Layer
from edgecompress_runtime.families.shared.scaling import Scaling, scaling
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.matmul import fully_connected, prepare_fully_connected
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline
from edgecompress_runtime.options import FullyConnectedOptions
from edgecompress_runtime.plan import Tensor

GROUP = 4  # channels
WIDTHS = (8, 6, 4, 10, 7, 5, 9, 3, 2)  # of an image that rows become; scratch memory holds one of its rows


def dense(name: str, module: str, row: Callable[..., Any], block: Callable[..., Any]) -> Callable[..., None]:
    """The kernel of a family for plain weights, to be imported as `name` from `module`.

    row(x, scratch, depth): where the block reads an input row. block(row, weights, padded, record, target, bounds):
    four outputs, requantized and stored. record: the records, and the number of this group's.
    """

    def kernel(tensors: Tuple, scratch: Pointer, sizes: Words, bounds: Words) -> None:
        """tensors: x, weights, records, y. sizes: rows, depth, depth of the padded weights, units."""
        x, w, records, y = tensors
        rows, depth, padded, units = sizes
        for r in range(rows):
            source = row(moved(x, i32(r * depth)), scratch, depth)
            target = moved(y, i32(r * units))
            for group in range(i32(i32(units + 3) // i32(4))):
                at = moved(target, min(i32(group * 4), i32(units - 4)))
                block(source, moved(w, i32(group * padded * 4)), padded, (records, group), at, bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@inline
def _decoded(w: Tuple, count: Word, group: Word) -> Pointer:
    """w: (code, table, memory)."""
    code, table, memory = w
    call_bytes(code, table, memory, count, group)
    return memory


def dense_coded(
    name: str, module: str, row: Callable[..., Any], block: Callable[..., Any], decode: Callable[..., Any] = _decoded
) -> Callable[..., None]:
    """The same for coded weights, of which four channels are decoded at a time, and used for all rows.

    decode(w, count, group): where the `count` weights of a group of channels are; called in order.
    """

    def kernel(tensors: Tuple, scratch: Pointer, sizes: Words, bounds: Words) -> None:
        x, w, records, y = tensors
        rows, depth, padded, units = sizes
        source = row(x, scratch, depth)
        for group in range(i32(i32(units + 3) // i32(4))):
            weights = decode(w, i32(padded * 4), group)
            for r in range(rows):
                if rows > 1:
                    source = row(moved(x, i32(r * depth)), scratch, depth)
                at = moved(y, i32(r * units + min(i32(group * 4), i32(units - 4))))
                block(source, weights, padded, (records, group), at, bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


def four_channel_records(scales: Scaling, groups: np.ndarray) -> np.ndarray:
    """int32 [groups, 4, 4]: four biases, multipliers, terms, shifts."""
    rows = np.stack([scales.bias, scales.multiplier, scales.term, scales.down]).astype(np.int32)
    return rows[:, groups].reshape(4, -1, 4).transpose(1, 0, 2)


def four_lane_records(scales: Scaling, groups: np.ndarray) -> np.ndarray:
    """The same with shifts negative, as vector units take them."""
    return four_channel_records(scales, groups) * np.array([1, 1, 1, -1], np.int32)[:, None]


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """weights: int8 [units, depth]. rows: of the input. bounds: of what is stored."""

    x: Tensor
    y: Tensor
    weights: np.ndarray
    scales: Scaling
    rows: int
    bounds: tuple[int, int]


def dense_layer(inputs: Sequence[Any], outputs: Sequence[Tensor], options: FullyConnectedOptions) -> DenseLayer | None:
    """None for weights that are not constant or have a zero point, and scales that need the ordinary kernel."""
    (ordinary,) = prepare_fully_connected(inputs, outputs, options)
    if ordinary.kernel is not fully_connected:
        return None
    arguments: tuple[Any, ...] = ordinary.arguments
    x, w, (bias, multiplier, shift), y, (rows, depth, units), (x_zero, w_zero, y_zero), bounds = arguments
    if w.data is None or w_zero:
        return None
    weights = w.data.reshape(units, depth)
    sums = weights.astype(np.int64)
    values = np.asarray(bias.data if isinstance(bias, Tensor) else bias).astype(np.int64).reshape(-1)
    folded = values - x_zero * sums.sum(1)
    largest = np.abs(folded) + 128 * np.abs(sums).sum(1)
    scales = scaling(folded, largest, multiplier, shift, y_zero)
    return None if scales is None else DenseLayer(x, y, weights, scales, rows, bounds)


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
class SeveralRows:
    """Rows as the pixels of an image, with a family's kernel for convolutions, which computes several together."""

    convolution: Arrangement

    def __call__(
        self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: FullyConnectedOptions
    ) -> list[Step] | None:
        """None for a single row, and numbers of rows that no width divides."""
        layer = fully_connected_layer(inputs, outputs, options)
        if layer is None or (width := next((w for w in WIDTHS if layer.out[1] % w == 0), 1)) == 1:
            return None
        rows = layer.out[1] // width
        size, out = ((rows, width, n) for n in (layer.size[2], layer.out[2]))
        return self.convolution.of(replace(layer, size=size, out=out))


@dataclass(frozen=True)
class DenseArrangement:
    """run: weights of a channel that follow one another; 0: all. aligned: a row's weights are a multiple of it.
    scratch: bytes of scratch for a padded row. records: of (scaling, channel numbers in fours). coded: for weights
    that are coded in flash; None to have them plain. least: the smallest weight that the arithmetic can do."""

    kernel: Callable[..., None]
    run: int
    aligned: int
    scratch: int
    records: Callable[[Scaling, np.ndarray], np.ndarray]
    coded: Coded | None
    least: int = -128

    def __call__(
        self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: FullyConnectedOptions
    ) -> list[Step] | None:
        """None for what `dense_layer` has none for, and fewer than four outputs."""
        layer = dense_layer(inputs, outputs, options)
        if layer is None or len(layer.weights) < GROUP or layer.weights.min() < self.least:
            return None
        weights, scales, (units, depth) = layer.weights, layer.scales, layer.weights.shape
        padded = -(-depth // self.aligned) * self.aligned
        groups, run = channel_groups(units, GROUP), self.run or padded
        arranged = np.pad(weights, ((0, 0), (0, padded - depth)))[groups]
        arranged = arranged.reshape(-1, GROUP, padded // run, run).transpose(0, 2, 1, 3).reshape(-1)
        held = self.coded(arranged, memory=GROUP * padded) if self.coded else None
        records, scratch = self.records(scales, groups).reshape(-1), Scratch(self.scratch * padded)
        tensors = layer.x, held.operand() if held else arranged, records, layer.y
        arguments = tensors, scratch, (layer.rows, depth, padded, units), layer.bounds
        return [held.step(arguments, {}) if held else Step(self.kernel, arguments)]
