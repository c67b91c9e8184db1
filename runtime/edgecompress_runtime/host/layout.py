"""How a layer is cut into blocks, and its weights in the order in which the blocks read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress_runtime.host.variants import Variant

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
    """The fastest by count: a step takes half a cycle (times `cost`), and so does a load."""
    total = -(-channels // variant.lanes)
    best: tuple[float, Cut] | None = None
    for vectors in range(1, min(total, MOST_VECTORS) + 1):
        blocks = -(-total // vectors)
        for block in range(1, min(pixels, 16) + 1):
            if block * vectors + min(vectors, 2) + 2 > variant.registers:
                break
            turn = max(block * vectors * variant.cost / 2, (block + vectors) / 2, LATENCY) + 0.5
            time = -(-pixels // block) * blocks * turn
            if best is None or time < best[0]:
                best = time, Cut(block, vectors, blocks, total - (blocks - 1) * vectors)
    assert best is not None
    return best[1]


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
