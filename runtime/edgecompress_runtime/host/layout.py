"""How a layer is cut into blocks, and its weights in the order in which the blocks read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgecompress_runtime.host.variants import Variant

LATENCY = 5.0  # cycles of a dependent sum
PICKED = 1.0  # cycles to load a vector and pick from it
NEAR, FETCHED = 24_576, 32  # bytes that stay in the first cache; that come from the second in a cycle
WINDOW = 32  # bytes: the windows that are picked from start at multiples of it, so that half of them are aligned
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
        for block in range(1, min(pixels, MOST_PIXELS) + 1):
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
class SparseCut(Cut):
    """sums: of each pixel and vector, taken in turn, so that they need not wait for one another."""

    sums: int


def sparse_cut(variant: Variant, pixels: int, channels: int) -> SparseCut:
    """Few vectors, as those of a block all take as many steps as the longest: only where pixels alone would leave the
    CPU waiting for sums."""
    total = -(-channels // variant.lanes)
    rounds = -(-pixels // min(MOST_PIXELS, variant.registers - 4))
    even = -(-pixels // rounds)
    chains = max(1, int(2 * LATENCY) // even)
    vectors = min(chains, 4, total)
    blocks = -(-total // vectors)
    return SparseCut(even, vectors, blocks, total - (blocks - 1) * vectors, min(chains // vectors, 8))


def sparse_time(variant: Variant, pixels: int, cut: SparseCut, picks: bool = False) -> float:
    """Cycles for a step of one vector of channels and a row of pixels."""
    loads = cut.pixels * PICKED + 1.0 if picks else (cut.pixels + 2) / 2
    turn = max(cut.pixels * variant.cost / 2, loads, LATENCY / (cut.sums * cut.vectors)) + 0.5 / cut.vectors
    return -(-pixels // cut.pixels) * turn


def with_fetching(cycles: float, block_bytes: float, blocks: int, rounds: int) -> float:
    """Cycles of a layer, of which `cycles` to compute, when its weights come from the second cache: each block's once
    for each of `rounds` blocks of pixels, or but once if it stays in the first cache."""
    return max(cycles, block_bytes * blocks * (rounds if block_bytes > NEAR else 1) / FETCHED)


class Steps(NamedTuple):
    """Of a sparse layer. weights: int8, flat, of each block [steps, vectors, bytes], a multiple of `sums` steps.
    places: int32, the bytes from a pixel's window to what each of them takes. starts: int32, the first of each block's
    and the end."""

    weights: np.ndarray
    places: np.ndarray
    starts: np.ndarray


def nonzero_steps(variant: Variant, w: np.ndarray, runs: np.ndarray, cut: SparseCut) -> Steps:
    """int8 [channels, parts, run], byte offsets [parts] of the runs: only the steps in which a vector has weights."""
    channels, _, run = w.shape
    vectors = -(-channels // variant.lanes)
    offsets = runs[:, None] + np.arange(-(-run // variant.products)) * 4
    flat = arranged(variant, w[None], Cut(1, 1, vectors, 1)).reshape(vectors, offsets.size, variant.bytes)
    kept = [np.flatnonzero(cells.any(1)) for cells in flat]
    return _in_blocks([(cells[k], offsets.reshape(-1)[k]) for cells, k in zip(flat, kept)], cut)


def picked_steps(variant: Variant, w: np.ndarray, runs: np.ndarray, cut: SparseCut) -> Steps:
    """int8 [channels, parts, run], runs as in `nonzero_steps`: in a step every channel of a vector takes its next
    weights that are not zero, as far as they fit and their inputs lie in the same `bytes`.

    Weights of a step follow the numbers of the bytes that they belong to.
    """
    channels, parts, run = w.shape
    vectors = -(-channels // variant.lanes)
    padded = np.zeros((vectors * variant.lanes, parts, run), np.int8)
    padded[:channels] = w
    found = []
    for group in padded.reshape(vectors, variant.lanes, parts, run):
        steps = [(picked.reshape(-1), runs[part] + start)
                 for part in range(parts) for start, picked in _windows(variant, group[:, part])]  # fmt: skip
        cells, places = zip(*steps) if steps else ((), ())
        found.append((np.array(cells, np.int8).reshape(len(cells), 2 * variant.bytes), np.array(places, np.int64)))
    return _in_blocks(found, cut)


def _in_blocks(vectors: list[tuple[np.ndarray, np.ndarray]], cut: SparseCut) -> Steps:
    """Of each vector (int8 [steps, bytes], places [steps])."""
    weights, places, starts = [], [], [0]
    for first in range(0, len(vectors), cut.vectors):
        block = vectors[first : first + cut.vectors]
        steps = -(-max(len(cells) for cells, _ in block) // cut.sums) * cut.sums
        held = np.zeros((steps, len(block), block[0][0].shape[1]), np.int8)
        taken = np.zeros(held.shape[:2], np.int32)
        for v, (cells, own) in enumerate(block):
            held[: len(cells), v], taken[: len(own), v] = cells, own
        weights.append(held.reshape(-1))
        places.append(taken.reshape(-1))
        starts.append(starts[-1] + taken.size)
    return Steps(np.concatenate(weights), np.concatenate(places), np.array(starts, np.int32))


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
