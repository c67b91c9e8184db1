"""A histogram that is filled in one pass, with a fixed number of bins and a range that grows with the data."""

from __future__ import annotations

import copy
import math

import numpy as np

BINS = 4096
MIN_EXPONENT = -100  # 2**-100: below it values count as zero; keeps 1/width a finite float32
CHUNK = 1 << 16  # values binned at a time: the scratch arrays stay in the cache


class Histogram:
    """Counts of a stream of values in at most BINS bins that always cover zero.

    Bin k counts the values in [k*w, (k+1)*w). The width w is a power of two, and it doubles (pairs of bins
    merge) when the values no longer fit, so:
    1. scaling, flooring and merging are exact, and the counts depend on the values alone, neither on their
       order nor on how they came in batches;
    2. w < (high - low) / (BINS / 2 - 2), where low..high is the range of the values and zero: 15 bins or
       more to a step of 8 bits;
    3. memory does not grow.
    minimum and maximum (of the values alone) are exact. Infinities are counted apart.
    """

    def __init__(self) -> None:
        self.exponent = MIN_EXPONENT
        self.start = 0  # index k of counts[0]
        self.counts = np.zeros(BINS, np.int64)
        self.minimum = math.inf
        self.maximum = -math.inf
        self.infinities = 0
        self.integral = True  # every value is a whole number

    @property
    def total(self) -> int:
        """How many finite values were counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of one bin, a power of two in the values' own units."""
        return 2.0**self.exponent

    def update(self, values: np.ndarray) -> None:
        """Counts the values of an array of any shape and float dtype. Raises ValueError for NaN."""
        flat = np.ascontiguousarray(values, np.float32).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if math.isnan(low) or math.isnan(high):
            raise ValueError("the values contain NaN")
        if math.isinf(low) or math.isinf(high):
            finite = flat[np.isfinite(flat)]
            self.infinities += flat.size - finite.size
            self.update(finite)
            return
        self._cover(low, high)
        # A look at the first values spares the rest of almost every array that isn't integral.
        self.integral = self.integral and _integral(flat[:CHUNK]) and _integral(flat)
        inverse = np.float32(2.0**-self.exponent)
        scratch = np.empty(min(CHUNK, flat.size), np.float32)
        for begin in range(0, flat.size, CHUNK):
            piece = flat[begin : begin + CHUNK]
            scaled = np.multiply(piece, inverse, out=scratch[: piece.size])
            index = np.floor(scaled, out=scaled).astype(np.intp)
            index -= self.start
            self.counts += np.bincount(index, minlength=BINS)

    def copy(self) -> Histogram:
        """The same counts, apart from what follows."""
        result = copy.copy(self)
        result.counts = self.counts.copy()
        return result

    def merged(self, other: Histogram) -> Histogram:
        """A new histogram of the values of both."""
        result = Histogram()
        for part in (self, other):
            if part.minimum <= part.maximum:
                result._cover(part.minimum, part.maximum)
                result.integral &= part.integral
            result.infinities += part.infinities
        for part in (self, other):
            result.counts += part._counts_on(result.exponent, result.start)
        return result

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and counts of the bins that are not empty, ascending: float64 [n], int64 [n].

        The outermost centres are moved inside the exact minimum and maximum.
        """
        used = np.flatnonzero(self.counts)
        centres = (used + self.start + 0.5) * self.width
        return np.clip(centres, self.minimum, self.maximum), self.counts[used]

    def quantile(self, share: float) -> float:
        """The value that `share` (0..1) of all values are at or below, exact to one bin width."""
        cumulative = np.cumsum(self.counts)
        target = share * cumulative[-1]
        index = int(np.searchsorted(cumulative, target))
        index = min(max(index, 0), BINS - 1)
        before = cumulative[index] - self.counts[index]
        within = (target - before) / max(int(self.counts[index]), 1)
        value = (index + self.start + min(max(within, 0.0), 1.0)) * self.width
        return float(np.clip(value, self.minimum, self.maximum))

    def _cover(self, low: float, high: float) -> None:
        """Makes room for low..high and zero."""
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        exponent = max(self.exponent, _exponent(low, high))
        start = math.floor(low * 2.0**-exponent)
        if (exponent, start) != (self.exponent, self.start):
            self.counts = self._counts_on(exponent, start)
            self.exponent, self.start = exponent, start

    def _counts_on(self, exponent: int, start: int) -> np.ndarray:
        """The counts on another grid that is as coarse or coarser and covers them."""
        used = np.flatnonzero(self.counts)
        moved = np.zeros(BINS, np.int64)
        shift = min(exponent - self.exponent, 62)
        np.add.at(moved, ((used + self.start) >> shift) - start, self.counts[used])
        return moved


def _integral(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _exponent(low: float, high: float) -> int:
    """The smallest e with which low..high fits into BINS bins of width 2**e on the grid."""
    if high == low:
        return MIN_EXPONENT
    e = max(math.ceil(math.log2((high - low) / BINS)) - 1, MIN_EXPONENT)
    while math.floor(high * 2.0**-e) - math.floor(low * 2.0**-e) >= BINS:
        e += 1
    return e
