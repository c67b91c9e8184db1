"""Arithmetic of bounds that hold for all finite inputs, channel by channel: records use it for their `bounds`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.nodes import integers

UNIT = 2.0**-24  # relative error of one float32 operation
TERMS = 2**14  # of a sum, at most
CHUNK = 2**18  # weights that are looked at together: what is computed of them stays in the cache
LARGEST = 2**24  # elements of a bound that is written out position by position; above it nothing is known
Known = Sequence["Interval | None"]  # bounds of a node's inputs, None for one that is left out or not a float


@dataclass(frozen=True)
class Interval:
    """low <= value <= high; float64, or a large constant as it is stored; of the value's rank, broadcast along
    dimensions of 1."""

    low: np.ndarray
    high: np.ndarray


def bound_of(known: Known, position: int) -> Interval:
    """The bounds of an input that the operator always has. Raises ValueError when it is left out."""
    interval = known[position]
    if interval is None:
        raise ValueError(f"input {position} has no bounds")
    return interval


def unknown(value: ir.Value) -> Interval:
    """The interval from minus infinity to infinity."""
    form = (1,) * len(shape(value))
    return Interval(np.full(form, -np.inf), np.full(form, np.inf))


def along(interval: Interval, axis: int, size: int) -> Interval:
    """[size]: bounds of each position along an axis, over all others."""
    others = tuple(i for i in range(interval.low.ndim) if i != axis)
    low, high = interval.low.min(others), interval.high.max(others)
    return Interval(np.broadcast_to(low, size), np.broadcast_to(high, size))


def rising(compute: Callable[[ir.Node, np.ndarray], np.ndarray]) -> Callable[[ir.Node, Known], Interval]:
    """Bounds of a function of one variable that never falls: (node, x) -> y."""

    def bound(node: ir.Node, known: Known) -> Interval:
        x = bound_of(known, 0)
        return Interval(compute(node, x.low), compute(node, x.high))

    return bound


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """0 times infinity is 0: bounds are of finite values."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def over_image(x: Interval, rank: int) -> Interval:
    """The bounds of each channel, at all positions of an image of this rank."""
    over = tuple(range(2, rank))
    return Interval(x.low.min(over, keepdims=True), x.high.max(over, keepdims=True))


def padded(node: ir.Node) -> bool:
    """Whether zeros around the image are computed with."""
    return any(integers(node, "pads"))


def or_zero(x: Interval) -> Interval:
    """The bounds of x when zeros are added to it."""
    return Interval(np.minimum(x.low, 0), np.maximum(x.high, 0))


def fits(value: ir.Value) -> bool:
    """Whether the value's bounds may be written out position by position."""
    return math.prod(shape(value)) <= LARGEST


def weighted_sums(weights: np.ndarray, line: Interval, bias: Interval, form: tuple[int, ...]) -> Interval:
    """Weights [groups, out, in, taps], of which each tap may see any value of its channel -> the least and the largest
    sums, as computed in float32: an error of at most terms * UNIT * sum |w x| on either side (N. Higham, Accuracy and
    Stability, equation 3.5)."""
    groups, outputs = weights.shape[:2]
    low, high = line.low.reshape(groups, 1, -1), line.high.reshape(groups, 1, -1)
    rows = max(CHUNK * outputs // max(weights.size, 1), 1)
    parts = [_sums(weights[:, i : i + rows], low, high) for i in range(0, outputs, rows)]
    least, largest, sizes = (np.concatenate(part, axis=1).reshape(-1) for part in zip(*parts, strict=True))
    error = TERMS * UNIT * np.where(np.isfinite(sizes), sizes, 0.0)
    return Interval((least - error + bias.low).reshape(form), (largest + error + bias.high).reshape(form))


def _sums(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[groups, out] each: the least sum, the largest one, and that of magnitudes."""
    if not ((low != 0) & np.isfinite(low)).any() and not ((high != 0) & np.isfinite(high)).any():  # signs alone count
        positive, negative = (weights > 0).any(3), (weights < 0).any(3)
        falls = ((positive & (low != 0)) | (negative & (high != 0))).any(2)
        grows = ((positive & (high != 0)) | (negative & (low != 0))).any(2)
        return np.where(falls, -np.inf, 0.0), np.where(grows, np.inf, 0.0), np.where(falls | grows, np.inf, 0.0)
    up, down = (side(weights, 0).sum(3, dtype=np.float64) for side in (np.maximum, np.minimum))
    least = (times(up, low) + times(down, high)).sum(2)
    largest = (times(up, high) + times(down, low)).sum(2)
    return least, largest, times(up - down, np.maximum(np.abs(low), np.abs(high))).sum(2)
