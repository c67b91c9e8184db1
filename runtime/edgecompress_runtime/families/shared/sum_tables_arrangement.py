"""When sums are looked up in tables, and how the operands of the kernels that do it are arranged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress_runtime.families.shared.arranged_convolution import (
    BANK_BYTES,
    channel_groups,
    channel_records,
    columns_of,
    trailing,
)
from edgecompress_runtime.families.shared.arranged_dense import four_channel_records
from edgecompress_runtime.families.shared.layer import Layer
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.sum_tables import ALIGNED, BINARY, KERNELS, TERNARY, Tables

LARGEST = 255  # weights whose sum fits 16 bits
OUTPUT = 25.0  # instructions of an output and part
# instructions on a Cortex-M4 of an input in a table, and of a weight in look-ups, by code and pixels
COST = {
    ("binary", 4): (5.8, 0.36),
    ("ternary", 4): (10.5, 0.53),
    ("binary", 1): (9.0, 0.9),
    ("ternary", 1): (18.0, 1.3),
}


@dataclass(frozen=True, eq=False)
class LookedUp:
    """time: instructions of a pixel on a Cortex-M4. codes: bytes of flash."""

    step: Step
    time: float
    codes: int


def looked_up(layer: Layer) -> LookedUp | None:
    """None for other weights than -1, 0 and 1, fewer than four channels of a row of fewer than four pixels, and tables
    that take too much memory."""
    weights, (_, out_w, _) = layer.weights, layer.out
    channels, kernel_h, kernel_w, depth = weights.shape
    pixels = 4 if out_w >= 4 else 1
    if np.abs(weights).max(initial=0) > 1 or channels * pixels < 4:
        return None
    code = BINARY if weights.all() else TERNARY
    tables, kernel = KERNELS[code.name, pixels]
    column = -(-kernel_h * depth // ALIGNED) * ALIGNED
    columns = columns_of(weights, column).reshape(channels, kernel_w, column)
    halves = code.halves(columns, even=pixels == 1)
    count, turns, numbers = halves.shape[2], -(-out_w // pixels), channel_groups(channels, tables.channels)
    sums = 16 * turns * (len(numbers) // tables.channels)
    if (some := _part(tables, columns, count, sums)) is None:
        return None
    parts = -(-count // some)
    codes = _in_order(halves[numbers].reshape(-1, tables.channels, kernel_w, count), some)
    records = (channel_records if tables.channels == 1 else four_channel_records)(layer.scales, numbers)
    strip = Scratch(((out_w - 1) * layer.stride[1] + kernel_w) * column + code.group)  # a last group may end behind it
    slots, totals = Scratch(kernel_w * some * tables.half), Scratch(kernel_w * 4 * tables.lanes)
    scratch = strip, slots, totals, Scratch(sums if parts > 1 else 0)
    geometry = layer.size, (kernel_h, kernel_w), layer.out, layer.stride, layer.dilation, layer.pads
    places = tuple(min(i * turns, out_w - turns) for i in range(pixels)), turns
    tensors = layer.x, codes, records.reshape(-1), layer.y
    arguments = tensors, scratch, geometry, layer.x.zero, layer.bounds, places, (count, some)
    overlap = {layer.x: trailing((1, *layer.size), (1, *layer.out), layer.stride[0], layer.pads[0])}
    filled = ((turns - 1) * min(layer.stride[1], kernel_w) + kernel_w) * column * pixels / out_w
    look_ups = channels * kernel_w * count * code.codes * code.group
    of_input, of_weight = COST[code.name, pixels]
    time = of_input * filled + of_weight * look_ups + OUTPUT * channels * parts
    return LookedUp(Step(kernel, arguments, overlap), time, codes.size)


def _part(tables: Tables, columns: np.ndarray, halves: int, sums: int) -> int | None:
    """How many half words of a column's codes a part takes, for weights [channels, columns, places] and so many bytes
    of sums between parts; None where memory is too small."""
    inputs = tables.code.codes * tables.code.group  # of a half word
    counted = columns > 0 if tables.code.base == 2 else columns != 0
    for parts in range(1, halves // 2 + 2):
        some = -(-halves // (2 * parts)) * 2 if parts > 1 else halves
        starts = range(0, columns.shape[2], some * inputs)
        largest = max(counted[:, :, s : s + some * inputs].sum((1, 2)).max() for s in starts)
        memory = columns.shape[1] * some * tables.half + (sums if parts > 1 else 0)
        if memory <= BANK_BYTES and (tables.pixels == 1 or max(largest, some * inputs) <= LARGEST):
            return some
    return None


def _in_order(halves: np.ndarray, some: int) -> np.ndarray:
    """uint16 [blocks, channels of one, columns, halves] -> int8, flat, as look-ups come."""
    parts = []
    for start in range(0, halves.shape[3], some):
        part = halves[..., start : start + some].transpose(0, 2, 1, 3)
        if part.shape[2] > 1:  # their words by turns
            part = part.reshape(*part.shape[:3], -1, 2).transpose(0, 1, 3, 2, 4)
        parts.append(part.reshape(-1))
    return np.concatenate(parts).astype("<u2").view(np.int8)
