"""How a layer is cut into blocks, and its weights in the order in which the blocks read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgecompress_runtime.host.variants import Variant

LATENCY = 5.0  # cycles of a dependent sum
PICKED = 1.0  # cycles to load a vector and pick from it
NEAR, FETCHED = 24_576, 32  # bytes that stay in the first cache; that come from the second in a cycle
WINDOW = 32  # bytes: the windows that are picked from start at multiples of it, so that half of them are aligned
MOST_VECTORS, MOST_STEPS = 8, 64  # of a block; of a turn of its loop


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
        for block in range(1, min(pixels, 16) + 1):
            if block * vectors + min(vectors, 2) + 2 <= variant.registers:
                cuts.append(Cut(block, vectors, blocks, total - (blocks - 1) * vectors))
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
    padded = np.zeros((groups, total * variant.lanes, parts, steps * variant.products),
                      np.int8 if variant.products == 4 else np.int16)  # fmt: skip
    padded[:, :channels, :, :run] = w
    split = padded.reshape(groups, total, variant.lanes, parts, steps, variant.products).transpose(0, 3, 4, 1, 2, 5)
    starts = range(0, total, cut.vectors)
    pieces = [split[g, :, :, start : start + cut.vectors].reshape(-1) for g in range(groups) for start in starts]
    return np.concatenate(pieces).view(np.int8)


@dataclass(frozen=True)
class SparseCut:
    """pixels: of a block, which has one vector of channels. sums: of each pixel, taken in turn, so that they need not
    wait for one another."""

    pixels: int
    sums: int


def sparse_cut(variant: Variant, pixels: int) -> SparseCut:
    count = min(pixels, variant.registers - 4)
    rounds = -(-pixels // count)
    even = -(-pixels // rounds)
    return SparseCut(even, max(1, min(int(2 * LATENCY) // even, 8)))


def sparse_time(variant: Variant, pixels: int, cut: SparseCut, picks: bool = False) -> float:
    """Cycles for a step of one vector of channels and a row of pixels."""
    loads = cut.pixels * PICKED + 1.0 if picks else (cut.pixels + 2) / 2
    turn = max(cut.pixels * variant.cost / 2, loads, LATENCY / cut.sums) + 0.5
    return -(-pixels // cut.pixels) * turn


def with_fetching(cycles: float, block_bytes: float, blocks: int, rounds: int) -> float:
    """Cycles of a layer, of which `cycles` to compute, when its weights come from the second cache: each block's once
    for each of `rounds` blocks of pixels, or but once if it stays in the first cache."""
    return max(cycles, block_bytes * blocks * (rounds if block_bytes > NEAR else 1) / FETCHED)


def nonzero_steps(
    variant: Variant, w: np.ndarray, runs: np.ndarray, sums: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 [channels, parts, run], byte offsets [parts] of the runs -> (weights, byte offsets, first step of each
    vector and the end): only the steps in which a vector has weights, filled up with zeros to a multiple of `sums`."""
    channels, _, run = w.shape
    vectors = -(-channels // variant.lanes)
    offsets = runs[:, None] + np.arange(-(-run // variant.products)) * 4
    flat = arranged(variant, w[None], Cut(1, 1, vectors, 1)).reshape(vectors, offsets.size, variant.bytes)
    weights, places, starts = [], [], [0]
    for cells in flat:
        (kept,) = np.nonzero(cells.any(1))
        missing = -len(kept) % sums
        weights += [cells[kept], np.zeros((missing, variant.bytes), np.int8)]
        places += [offsets.reshape(-1)[kept], np.zeros(missing, np.int64)]
        starts.append(starts[-1] + len(kept) + missing)
    return np.concatenate(weights).reshape(-1), np.concatenate(places).astype(np.int32), np.array(starts, np.int32)


def picked_steps(
    variant: Variant, w: np.ndarray, runs: np.ndarray, sums: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 [channels, parts, run], runs as in `nonzero_steps`, and its result: in a step every channel of a
    vector takes its next weights that are not zero, as far as they fit and their inputs lie in the same `bytes`.

    Weights of a step follow the numbers of the bytes that they belong to.
    """
    channels, parts, run = w.shape
    vectors = -(-channels // variant.lanes)
    padded = np.zeros((vectors * variant.lanes, parts, run), np.int8)
    padded[:channels] = w
    cells, places, starts = [], [], [0]
    for group in padded.reshape(vectors, variant.lanes, parts, run):
        for part in range(parts):
            for start, picked in _windows(variant, group[:, part]):
                cells.append(picked)
                places.append(runs[part] + start)
        missing = -(len(cells) - starts[-1]) % sums
        cells += [np.zeros((2, variant.bytes), np.int8)] * missing
        places += [0] * missing
        starts.append(len(cells))
    return np.array(cells, np.int8).reshape(-1), np.array(places, np.int32), np.array(starts, np.int32)


def _windows(variant: Variant, w: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """int8 [lanes, run] -> of each step where its window starts, and int8 [2, bytes]: bytes of it, their weights."""
    lanes, width, each = variant.lanes, variant.bytes, variant.products
    pending = [np.flatnonzero(row) for row in w]
    while first := [left[0] for left in pending if left.size]:
        start = min(first) // WINDOW * WINDOW
        picked = np.zeros((2, lanes, each), np.int8)
        for lane, left in enumerate(pending):
            taken = left[:each][left[:each] < start + width]
            picked[0, lane, : taken.size], picked[1, lane, : taken.size] = taken - start, w[lane, taken]
            pending[lane] = left[taken.size :]
        yield start, picked.reshape(2, width)
