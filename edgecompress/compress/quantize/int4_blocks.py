"""Scales and zero points of int4 weights in blocks: those of least squared error.

A block is what follows one another in a row of a matrix [channels, inputs of one output]. Its whole numbers are -8..7,
or -7..7 where a whole channel has one scale and no zero point, as TFLite has it. Without zero points real = scale *
whole; with them real = scale * (whole - zero_point).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.graph.annotations import Quantization
from edgecompress.graph.few_bits import INT4_RANGE

LOW, HIGH = INT4_RANGE
SHARES = np.linspace(
    0.55, 1.0, 10, dtype=np.float32
)  # of the steps that would reach the largest weight, to choose from
ROWS = 1 << 15  # blocks that are computed at a time
LEAST_BLOCK = 16  # that ONNX Runtime multiplies by


@dataclass(frozen=True)
class Blocks:
    """How int4 weights are grouped. size: weights of a block; None: a whole channel. zero_points: whether blocks have
    some."""

    size: int | None = 32
    zero_points: bool = False

    @property
    def is_narrow(self) -> bool:
        """Whether whole numbers are -7..7."""
        return self.size is None and not self.zero_points

    def size_for(self, inputs: int) -> int:
        """The size for channels of so many weights: a power of two, for a whole channel perhaps more than it has."""
        return self.size or max(1 << (inputs - 1).bit_length(), LEAST_BLOCK)

    def bits(self, inputs: int) -> float:
        """Of a weight, with the float32 scale and the zero point of its block."""
        return 4 + (32 + 4 * self.zero_points) * -(-inputs // self.size_for(inputs)) / inputs


def quantize_blocks(matrix: np.ndarray, axis: int, blocks: Blocks) -> Quantization:
    """int4 for a float matrix with channels along `axis` (0 or 1)."""
    rows = matrix if axis == 0 else matrix.T
    size = blocks.size_for(rows.shape[1])
    count = -(-rows.shape[1] // size)
    scale, zero = (np.empty((len(rows), count), dtype) for dtype in (np.float32, np.int32))
    step = max(ROWS // count, 1)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        padded = np.zeros((len(part), count * size), np.float32)
        padded[:, : part.shape[1]] = part
        found = steps(padded.reshape(-1, size), blocks.zero_points, LOW + blocks.is_narrow)
        scale[start : start + step], zero[start : start + step] = (a.reshape(-1, count) for a in found)
    return Quantization(scale, zero, axis, narrow_range=blocks.is_narrow, kind="int4", block=size)


def steps(rows: np.ndarray, zero_points: bool, lowest: int = LOW) -> tuple[np.ndarray, np.ndarray]:
    """(scale, zero point), [rows], of least squared error for rows [rows, weights]. Padding is zeros."""
    rows = rows.astype(np.float32)
    low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
    widest = (high - low) / (HIGH - LOW) if zero_points else np.maximum(high / HIGH, low / lowest)
    widest = np.where(widest > np.finfo(np.float32).tiny, widest, 1.0)
    best, zero, least = widest.copy(), np.zeros(len(rows), np.float32), np.full(len(rows), np.inf, np.float32)
    for share in SHARES:
        step = share * widest
        point = np.clip(np.rint(LOW - share * low / step), LOW, HIGH) if zero_points else np.zeros_like(step)
        whole = nearest(rows, step[:, None], point[:, None], lowest) - point[:, None]
        energy = np.square(whole).sum(axis=1)
        fitted = np.where(energy > 0, (rows * whole).sum(axis=1) / np.maximum(energy, 1), step)  # the best for these
        error = np.square(rows - fitted[:, None] * whole).sum(axis=1)
        better = (error < least) & (fitted > 0)
        best[better], zero[better], least[better] = fitted[better], point[better], error[better]
    return best, zero.astype(np.int32)


def nearest(real: np.ndarray, scale: np.ndarray, zero: np.ndarray, lowest: int = LOW) -> np.ndarray:
    """The stored whole numbers, as floats of the type of `real`."""
    return np.clip(np.rint(real / scale) + zero, lowest, HIGH)
