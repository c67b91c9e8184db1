"""Requantization in few instructions, bit for bit as `arithmetic.requantize`.

With shift = -down < 0 (gemmlowp): x = (acc * m + 2**30) >> 31, then x / 2**down to nearest, halves away
from zero: (x + 2**(down - 1) - (x < 0)) >> down. With acc doubled, x is the rounded upper half of the 64-bit
product; (acc < 0) may stand for (x < 0), for they differ only where x = 0, which gives 0 either way; and the
output's zero point joins the sum, as zero << down. So: a doubling, a sum, a rounded multiply-accumulate of the
upper half (SMMLAR), a shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from edgecompress_runtime.families.shared.words import rounded_high_product, shifted_right
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Word, inline

LIMIT = 2.0**31
FINEST = 2**28  # of what sums are raised by, or near to it
NEAR = 512  # sums beyond it are more than 256 times an output's step, where it takes two of them or fewer


@dataclass(frozen=True)
class Scaling:
    """Per channel, int32 [n]: bias, multiplier, term (rounding and zero point), down.

    y before clamping is `scaled_twice` of (acc + bias, multiplier, term, down).
    """

    bias: np.ndarray
    multiplier: np.ndarray
    term: np.ndarray
    down: np.ndarray

    def records(self) -> np.ndarray:
        """int32 [n, 4]: what a kernel reads for a channel."""
        return np.stack([self.bias, self.multiplier, self.term, self.down], axis=1).astype(np.int32)


def scaling(
    bias: np.ndarray, largest: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: int
) -> Scaling | None:
    """multiplier, shift: of `arithmetic.quantize_multipliers`; zero: of the output; largest: bound of the
    accumulator's magnitude, bias included, per channel.

    None where a step would not fit in 32 bits: the ordinary kernel does those.
    """
    down, largest = -shift.astype(np.int64), largest.astype(np.float64)
    if (down < 0).any() or (down > 30).any():
        return None
    term = ((np.int64(1) << down) >> 1) + (np.int64(zero) << down)
    bias = bias.astype(np.int64)
    for channel in np.flatnonzero(down == 0):
        if (found := _raise(int(multiplier[channel]), int(largest[channel]))) is None:
            return None
        raised, whole = found
        bias[channel] += raised
        largest[channel] += raised
        term[channel] -= whole
    if (2.0 * largest >= LIMIT).any() or (np.abs(term) + largest + 1.0 >= LIMIT).any():
        return None
    return Scaling(bias.astype(np.int32), multiplier.astype(np.int32), term, down)


def _raise(multiplier: int, largest: int) -> tuple[int, int] | None:
    """A number of `largest` or more, and its product with multiplier / 2**31 to nearest, which is so near that every
    sum that may be stored unclamped is rounded as without it; None where none is."""
    ratio = Fraction(multiplier, 2**31).limit_denominator(FINEST)
    times = -(-largest // ratio.denominator)
    raised, whole = times * ratio.denominator, times * ratio.numerator
    sums = np.arange(-NEAR, NEAR + 1, dtype=np.int64) * multiplier + 2**30
    right = (sums + raised * multiplier >> 31) - whole == sums >> 31
    return (raised, whole) if right.all() else None


@inline
def scaled_twice(acc: Word, multiplier: Word, term: Word, down: Word) -> Word:
    """An accumulator, bias included, with a record's numbers: what is stored, not yet clamped, rounded twice."""
    rounding = i32(term + shifted_right(acc, i32(31)))
    return shifted_right(rounded_high_product(i32(acc * i32(2)), multiplier, rounding), down)
