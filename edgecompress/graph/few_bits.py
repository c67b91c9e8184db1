"""Weights of few bits: an ordinary int8 weight whose whole numbers take few values, times one scale for each channel.

binary: -1 and 1; the scale is the mean magnitude (M. Rastegari et al., "XNOR-Net", ECCV 2016, equation 6).
ternary: -1, 0 and 1; 0 up to 0.7 of the mean magnitude, and the scale is the mean magnitude of the others (F. Li et
al., "Ternary weight networks", 2016, equations 5 and 6).
int4: -7 to 7; the scale of least squared error. In blocks (`compress/quantize/int4_blocks.py`) -8 to 7.

Weights that are exactly zero have been pruned: they take no part in a mean, and stay zero where there is a zero.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

WeightType = Literal["int8", "int4", "ternary", "binary"]
LARGEST: dict[str, int] = {"int8": 127, "int4": 7, "ternary": 1, "binary": 1}  # magnitude of a whole number
BITS: dict[str, int] = {"int8": 8, "int4": 4, "ternary": 2, "binary": 1}
INT4_RANGE = (-8, 7)  # of what four bits hold
THRESHOLD = 0.7  # of the mean magnitude
SHARES = np.linspace(0.3, 1.0, 15)  # of the range that would hold the largest int4 weight, to choose from


def scales(kind: WeightType, weight: np.ndarray, axis: int | None) -> np.ndarray:
    """float64 [channels] for a float weight with channels along `axis`, [1] for None; 0 for a channel of zeros."""
    rows = _rows(weight, axis)
    if kind == "int4":
        return _least_error(rows.astype(np.float64))
    if kind == "int8":
        return rows.max(axis=1, initial=0).astype(np.float64) / LARGEST[kind]
    return _mean(rows, rows > (THRESHOLD * _mean(rows, rows > 0)[:, None] if kind == "ternary" else 0.0))


def integers(kind: WeightType, weight: np.ndarray, scale: np.ndarray, axis: int | None) -> np.ndarray:
    """int8, of the weight's shape. scale: of a shape that divides it."""
    if kind != "ternary":
        return nearest(kind, weight / scale)
    rows = _rows(weight, axis)
    mean = _mean(rows, rows > 0).reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return (np.sign(weight) * (np.abs(weight) > THRESHOLD * mean)).astype(np.int8)


def nearest(kind: WeightType, ratios: np.ndarray) -> np.ndarray:
    """int8: the whole number of that type that is nearest to each number of scales."""
    if kind == "binary":
        return np.where(ratios >= 0, 1, -1).astype(np.int8)
    return np.clip(np.rint(ratios), -LARGEST[kind], LARGEST[kind]).astype(np.int8)


def narrowest(stored: np.ndarray) -> WeightType:
    """The type of fewest bits that has all of these int8 numbers; int8 where all are zero."""
    low, high = int(stored.min(initial=0)), int(stored.max(initial=0))
    if low == high or low < -LARGEST["int4"] or high > LARGEST["int4"]:
        return "int8"
    if low < -1 or high > 1:
        return "int4"
    return "ternary" if (stored == 0).any() else "binary"


def _rows(weight: np.ndarray, axis: int | None) -> np.ndarray:
    """Magnitudes, [channels, weights of each]."""
    rows = weight[None] if axis is None else np.moveaxis(weight, axis, 0)
    return np.abs(rows.reshape(len(rows), -1))


def _mean(rows: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """[channels] of those that count; 0 where none does."""
    return np.where(counted, rows, 0).sum(axis=1, dtype=np.float64) / np.maximum(counted.sum(axis=1), 1)


def _least_error(rows: np.ndarray) -> np.ndarray:
    largest = rows.max(axis=1, initial=0.0) / LARGEST["int4"]
    best, least = largest.copy(), np.full(len(rows), np.inf)
    for share in SHARES:
        step = np.where(largest > 0, share * largest, 1.0)[:, None]
        error = np.square(rows - step * nearest("int4", rows / step)).sum(axis=1)
        better = error < least
        best[better], least[better] = share * largest[better], error[better]
    return best
