"""Cuts a layer into blocks, and puts its weights in the order in which the blocks read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgecompress_runtime.families.x86.variants import Variant

LATENCY = 5.0  # cycles of a dependent sum
PICKED = 4 / 3  # cycles to pick from a vector, and for the products
NEAR, FETCHED = 24_576, 32  # bytes that stay in the first cache; that come from the second in a cycle
WINDOW = 16  # bytes: the windows that are picked from start at multiples of it
MOST_PIXELS, MOST_VECTORS, MOST_STEPS = 16, 8, 64  # of a block; of a turn of its loop


@dataclass(frozen=True)
class Cut:
    """pixels, vectors: of a block. blocks: of output channels; the last one has `last` vectors."""

    pixels: int
    vectors: int
    blocks: int
    last: int


def cut(variant: Variant, pixels: int, channels: int) -> Cut:
    """The fastest by `dense_time`."""
    total = -(-channels // variant.lanes)
    cuts = []
    for vectors in range(1, min(total, MOST_VECTORS) + 1):
        blocks = -(-total // vectors)
        cuts += [
            Cut(block, vectors, blocks, total - (blocks - 1) * vectors)
            for block in range(1, min(pixels, MOST_PIXELS) + 1)
            if block * vectors + min(vectors, 2) + 2 <= variant.registers
        ]
    return min(cuts, key=lambda c: dense_time(variant, pixels, c))


def dense_time(variant: Variant, pixels: int, cut: Cut) -> float:
    """Cycles for a step of all channels and a row of pixels: a step of a vector takes half a cycle (times `cost`),
    and so does a load."""
    sums = cut.pixels * cut.vectors
    turn = max(sums * variant.cost / 2, (cut.pixels + cut.vectors) / 2, LATENCY) + 0.5
    return -(-pixels // cut.pixels) * cut.blocks * turn


def unrolled(steps: int, sums: int) -> int:
    """Steps in a turn of the loop: a divisor of all, so that nothing is left over."""
    return next(n for n in (4, 3, 2, 1) if steps % n == 0 and (n == 1 or n * sums <= MOST_STEPS))


def arranged(variant: Variant, w: np.ndarray, cut: Cut) -> np.ndarray:
    """int8 [groups, channels, parts, run] -> a flat array in blocks of [parts, steps, vectors, lanes, products].

    int8 where a step takes four products, else int16. Zeros stand where channels or the run's last step end.
    """
    groups, channels, parts, run = w.shape
    total, steps = (cut.blocks - 1) * cut.vectors + cut.last, -(-run // variant.products)
    padded = np.zeros(
        (groups, total * variant.lanes, parts, steps * variant.products), np.int8 if variant.products == 4 else np.int16
    )
    padded[:, :channels, :, :run] = w
    split = padded.reshape(groups, total, variant.lanes, parts, steps, variant.products).transpose(0, 3, 4, 1, 2, 5)
    starts = range(0, total, cut.vectors)
    pieces = [split[g, :, :, start : start + cut.vectors].reshape(-1) for g in range(groups) for start in starts]
    return np.concatenate(pieces).view(np.int8)


@dataclass(frozen=True)
class SkippingCut(Cut):
    """sums: of each pixel and vector, taken in turn, so that they need not wait for one another. window: vectors of
    inputs, 1 or 2, out of which a step picks those for each channel; 0 where a step takes the same ones for all."""

    sums: int
    window: int

    @property
    def picks(self) -> bool:
        """Whether a step picks the inputs of each channel."""
        return self.window > 0

    @property
    def sorts(self) -> bool:
        """Whether a block's channels are sorted by how many weights they have, so that those of a vector have about as
        many; else all vectors of a block take as many steps as the longest."""
        return self.picks and self.vectors > 1


def skipping_cuts(variant: Variant, pixels: int, channels: int) -> list[SkippingCut]:
    """One of each kind that there is. Picking takes four vectors, for which an input is loaded once; out of two vectors
    of inputs it takes fewer steps but longer ones, which pays where fetching weights is what takes time. Else there is
    one, or as many as the CPU needs so as not to wait for the sums of few pixels."""
    total = -(-channels // variant.lanes)

    def cut(vectors: int, most: int, window: int, chains: float) -> SkippingCut:
        each = -(-pixels // -(-pixels // most))
        blocks, sums = -(-total // vectors), max(1, min(int(chains / (each * vectors)), 8))
        return SkippingCut(each, vectors, blocks, total - (blocks - 1) * vectors, sums, window)

    few, four = min(max(1, int(2 * LATENCY) // pixels), 4, total), min(4, total)
    cuts = [cut(few, min(MOST_PIXELS, variant.registers - 4), 0, 2 * LATENCY)]
    if variant.pick:
        window = 2 if pixels == 1 else 1
        cuts.append(cut(four, min(MOST_PIXELS, (variant.registers - 10) // four), window, LATENCY))
    return cuts


def skipping_time(variant: Variant, pixels: int, cut: SkippingCut) -> float:
    """Cycles for a step of one vector of channels and a row of pixels."""
    dots = cut.pixels * (PICKED if cut.picks else variant.cost / 2)
    loads = cut.pixels * cut.window / cut.vectors + 2.0 if cut.picks else (cut.pixels + 2) / 2
    turn = max(dots, loads, LATENCY / (cut.sums * cut.vectors)) + 0.5 / cut.vectors
    return -(-pixels // cut.pixels) * turn


def with_fetching(cycles: float, block_bytes: float, blocks: int, rounds: int) -> float:
    """Cycles of a layer, of which `cycles` to compute, when its weights come from the second cache: each block's once
    for each of `rounds` blocks of pixels, or but once if it stays in the first cache."""
    return max(cycles, block_bytes * blocks * (rounds if block_bytes > NEAR else 1) / FETCHED)


class Steps(NamedTuple):
    """Of a layer that skips zeros. weights: int8, flat, of each block's steps a cell of each vector that still has one.
    places: int32, the bytes from a pixel's window to what a cell takes, or where it picks, the cells of a step. starts:
    int32 [blocks, 2], each block's first in weights, in cells, and in places. counts: int32 [blocks, vectors], the
    steps of each vector, a multiple of `sums`; of a block, they never rise. channels: int64 [vectors * lanes], the
    channel of each lane, -1 for none. order: int8 [blocks, bytes], of each of a block's channels where it lies among
    those of four packed vectors."""

    weights: np.ndarray
    places: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    channels: np.ndarray
    order: np.ndarray


def skipping_steps(variant: Variant, w: np.ndarray, runs: np.ndarray, cut: SkippingCut) -> Steps:
    """int8 [channels, parts, run], byte offsets [parts] of the runs."""
    lanes = variant.lanes
    channels = np.full(((cut.blocks - 1) * cut.vectors + cut.last) * lanes, -1)
    channels[: len(w)] = np.arange(len(w))
    order = np.zeros((cut.blocks, 4 * lanes), np.int8)
    starts, counts = np.zeros((cut.blocks, 2), np.int32), np.zeros((cut.blocks, cut.vectors), np.int32)
    weights: list[np.ndarray] = []
    places: list[int] = []
    for number in range(cut.blocks):
        own = channels[number * cut.vectors * lanes :][: cut.vectors * lanes]
        if cut.sorts:
            order[number] = _sorted(own, np.count_nonzero(w.reshape(len(w), -1), axis=1), lanes)
        rows = np.where((own >= 0)[:, None, None], w[own], 0)
        cells, taken, needed = _picked(variant, rows, runs, cut.window) if cut.picks else _nonzero(variant, rows, runs)
        needed = -(-needed // cut.sums) * cut.sums
        counts[number, : len(needed)] = needed
        starts[number] = len(weights), len(places)
        missing = needed.max() - len(cells)
        cells, taken = (np.pad(n, [(0, missing)] + [(0, 0)] * (n.ndim - 1)) for n in (cells, taken))
        weights += [cell for step, every in enumerate(cells) for cell in every[needed > step]]
        places += list(taken.reshape(-1))
    flat = np.concatenate(weights) if weights else np.zeros(0, np.int8)
    return Steps(flat, np.array(places, np.int32), starts, counts, channels, order)


def _sorted(channels: np.ndarray, counts: np.ndarray, lanes: int) -> np.ndarray:
    """Sorts them in place, most weights first, -1 last, and returns a row of `order`."""
    first = channels.min(where=channels >= 0, initial=counts.size)
    channels[:] = sorted(channels, key=lambda c: -counts[c] if c >= 0 else 1)
    (slots,) = np.nonzero(channels >= 0)
    vector, lane = slots // lanes, slots % lanes
    order = np.zeros(4 * lanes, np.int8)
    order[channels[slots] - first] = lane // 4 * 16 + vector * 4 + lane % 4
    return order


def _nonzero(variant: Variant, w: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 [vectors * lanes, parts, run]: the steps in which a vector has weights. int8 [steps, vectors, bytes], int64
    [steps, vectors], and the most steps, for each vector."""
    vectors = len(w) // variant.lanes
    offsets = (runs[:, None] + np.arange(-(-w.shape[2] // variant.products)) * 4).reshape(-1)
    flat = arranged(variant, w[None], Cut(1, 1, vectors, 1)).reshape(vectors, offsets.size, variant.bytes)
    kept = [np.flatnonzero(cells.any(1)) for cells in flat]
    steps = max(len(k) for k in kept)
    cells, places = np.zeros((steps, vectors, variant.bytes), np.int8), np.zeros((steps, vectors), np.int64)
    for v, k in enumerate(kept):
        cells[: len(k), v], places[: len(k), v] = flat[v, k], offsets[k]
    return cells, places, np.full(vectors, steps)


def _picked(
    variant: Variant, w: np.ndarray, runs: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In a step every channel takes its next weights that are not zero, as far as they fit and their inputs lie in the
    same window, of so many vectors. int8 [steps, vectors, 2 * bytes], the inputs' numbers before the weights; int64
    [steps]; the steps that each vector needs, which never rise."""
    lanes, width, each = variant.lanes, variant.bytes, variant.products
    vectors = len(w) // lanes
    cells, places, needed = [], [], np.zeros(vectors, np.int64)
    for part, run in enumerate(runs):
        pending = [np.flatnonzero(row) for row in w[:, part]]
        while first := [left[0] for left in pending if left.size]:
            start = min(first) // WINDOW * WINDOW
            picked = np.zeros((vectors, lanes, 2, each), np.int8)
            for row, left in enumerate(pending):
                taken = left[:each][left[:each] < start + window * width]
                found = picked[row // lanes, row % lanes, :, : taken.size]
                found[:] = taken - start, w[row, part, taken]
                pending[row] = left[taken.size :]
            cells.append(picked.transpose(0, 2, 1, 3).reshape(vectors, 2 * width))
            places.append(run + start)
            needed[picked[:, :, 1].any((1, 2))] = len(cells)
    held = np.array(cells, np.int8).reshape(len(cells), vectors, 2 * width)
    return held, np.array(places, np.int64), np.maximum.accumulate(needed[::-1])[::-1]
