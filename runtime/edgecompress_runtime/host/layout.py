"""How a layer is cut into blocks, and its weights in the order in which the blocks read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress_runtime.host.variants import Variant

CACHE = 2**20  # bytes of weights that stay near the CPU from one inference to the next
LATENCY = 5.0  # cycles of a dependent sum
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


def sparse_time(variant: Variant, pixels: int, cut: SparseCut) -> float:
    """Cycles for a step of one vector of channels and a row of pixels."""
    turn = max(cut.pixels * variant.cost / 2, (cut.pixels + 2) / 2, LATENCY / cut.sums) + 0.5
    return -(-pixels // cut.pixels) * turn


def nonzero_steps(
    variant: Variant, w: np.ndarray, offsets: np.ndarray, sums: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 [channels, parts, run], byte offsets [parts, steps] -> (weights, offsets, first step of each vector and
    the end): only the steps in which a vector has weights, filled up with zeros to a multiple of `sums`."""
    channels = len(w)
    vectors = -(-channels // variant.lanes)
    flat = arranged(variant, w[None], Cut(1, 1, vectors, 1)).reshape(vectors, offsets.size, variant.bytes)
    weights, places, starts = [], [], [0]
    for cells in flat:
        (kept,) = np.nonzero(cells.any(1))
        missing = -len(kept) % sums
        weights += [cells[kept], np.zeros((missing, variant.bytes), np.int8)]
        places += [offsets.reshape(-1)[kept], np.zeros(missing, np.int64)]
        starts.append(starts[-1] + len(kept) + missing)
    return np.concatenate(weights).reshape(-1), np.concatenate(places).astype(np.int32), np.array(starts, np.int32)


def pays_to_expand(variant: Variant, pixels: int, w: np.ndarray) -> bool:
    """Taking weights apart costs more than to multiply by zeros, but less than to fetch zeros from memory."""
    return variant.expands and pixels == 1 and w.size > CACHE and np.count_nonzero(w) < w.size / 2


def packed(variant: Variant, w: np.ndarray, sums: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """int8 [channels, run] -> (weights that are not zero, in the order of steps; a mask of 64 bits for each step, as
    int32; first weight of each vector; steps of a vector, a multiple of `sums`)."""
    vectors = -(-len(w) // variant.lanes)
    cells = arranged(variant, w[None, :, None], Cut(1, 1, vectors, 1)).reshape(vectors, -1, variant.bytes)
    cells = np.pad(cells, ((0, 0), (0, -cells.shape[1] % sums), (0, 0)))
    masks = np.packbits(cells != 0, axis=2, bitorder="little").reshape(-1).view(np.int32)
    starts = np.concatenate([[0], np.cumsum((cells != 0).sum((1, 2)))[:-1]]).astype(np.int32)
    return cells[cells != 0], masks, starts, cells.shape[1]
