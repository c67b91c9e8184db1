"""Per-channel requantization as vectors need it, bit for bit `arithmetic.requantize`.

As gemmlowp rounds: high = (acc << up) * m / 2**31, halves up, then high / 2**down, halves away from zero.
(acc << up) * 2m + 2**31 has `high` as its upper half; halves away from zero are (high + 2**(down - 1) - (high < 0)) >>
down, in which acc < 0 may stand for high < 0 (they differ only where high = 0, which gives 0 either way).

2m is a number of 32 bits without a sign. So acc gets 2**30 added, with its bias, and has none either: its bit 30 is
then 1 - (acc < 0), at the price of one shift. What is constant after the product may as well be added to it, all 64
bits: what that 2**30 makes too much, the halves, the zero point as zero << down.

Where up = 0 and nothing below the zero point is kept, as with a ReLU, the case of acc < 0 falls away too (it gives the
zero point at most, however halves are rounded), and what is left is one floor, as floors nest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from edgecompress_runtime.families.x86.real import Real, search

LIMIT = 2.0**31
RAISED = 2**30  # added to an accumulator, so that it has no sign


class Rounding(Enum):
    """REAL, REAL_TWICE: in float32, with one offset or two (real.py). Of acc, raised: FLOOR: ((acc * m + term) >> 32)
    >> down. TWICE: (((acc * m + term) >> 32) + (acc >> 30)) >> down. TWICE_UP: so, of an acc that is not raised but
    shifted up first, and only some channels add its bit 30."""

    REAL = "real"
    REAL_TWICE = "real_twice"
    FLOOR = "floor"
    TWICE = "twice"
    TWICE_UP = "twice_up"


@dataclass(frozen=True, eq=False)
class Fields:
    """What `x86_vectors.requantized` needs of each channel, int64 [channels]. multiplier: doubled. REAL and REAL_TWICE
    have floats' bits: the scale for multiplier, the offsets for up and nudge; and real.Real.limit for down."""

    bias: np.ndarray
    multiplier: np.ndarray
    term: np.ndarray
    down: np.ndarray
    up: np.ndarray
    nudge: np.ndarray
    rounding: Rounding

    def numbers(self) -> tuple[int, ...]:
        """The fields of a single channel, as `x86_vectors.spread` takes them."""
        halves = self.term.astype("<i8").view("<i4")
        every = self.bias, self.multiplier.astype(np.uint32).view(np.int32), halves, self.down, self.up, self.nudge
        return tuple(int(n) for n in np.concatenate(every))

    def records(self, lanes: int, channels: np.ndarray) -> np.ndarray:
        """int32, flat: [vectors, fields in the order of `x86_vectors`, lanes]. channels: of each lane, int64 [vectors *
        lanes], -1 for none, which gets zeros."""

        def placed(field: np.ndarray) -> np.ndarray:
            return np.where(channels >= 0, field[channels], 0).reshape(-1, lanes)

        multiplier, term = placed(self.multiplier), placed(self.term)
        swapped = multiplier.reshape(-1, 2)[:, ::-1].reshape(multiplier.shape)
        even, odd = (np.ascontiguousarray(term[:, first::2]).astype("<i8").view("<i4") for first in (0, 1))
        rest = (placed(field) for field in (self.down, self.up, self.nudge))
        fields = placed(self.bias), multiplier, swapped, even, odd, *rest
        return np.stack([f.astype(np.int64).astype(np.uint32).view(np.int32) for f in fields], 1).reshape(-1)


def in_order(groups: int, channels: int, lanes: int) -> np.ndarray:
    """The channels of each lane, for `Fields.records`: each group starts with a vector of its own."""
    vectors = -(-channels // lanes)
    found = np.full((groups, vectors * lanes), -1)
    found[:, :channels] = np.arange(groups * channels).reshape(groups, channels)
    return found.reshape(-1)


def channel_fields(
    bias: np.ndarray,
    largest: np.ndarray,
    scaling: tuple[np.ndarray, np.ndarray],
    zero: int,
    *,
    low: int = -128,
    fuses: bool = False,
) -> Fields | None:
    """All arrays [channels]. largest: bound of each accumulator's magnitude, bias included. scaling: multiplier and
    shift. low: of what is kept. fuses: whether the CPU multiplies and adds floats in one.

    None where a step would not fit in 32 bits.
    """
    bias, multiplier, shift = (array.astype(np.int64) for array in (bias, *scaling))
    up, down = np.maximum(shift, 0), np.maximum(-shift, 0)
    if (down > 30).any() or (multiplier < 0).any():
        return None
    half = np.where(down > 0, 2.0 ** (down - 1), 0.0)
    reached = largest.astype(np.float64) * 2.0**up
    if (2.0 * reached >= LIMIT).any() or (half + abs(zero) * 2.0**down + reached + 2.0 >= LIMIT).any():
        return None
    if (np.abs(bias) >= RAISED).any():
        return None
    if fuses and (real := search(largest.astype(np.int64), multiplier, shift, zero, low)):
        return _real(bias, real)
    nudge = np.where(down > 0, 1, 0)
    # sums beyond 64 bits are right again once acc * m is added
    term = (half * 2.0**32).astype(np.int64) + (zero << (down + 32)) - RAISED * 2 * multiplier
    if low >= zero and nudge.all():
        rounding, term = Rounding.FLOOR, term + 2**31
    else:
        rounding, term = Rounding.TWICE if nudge.all() else Rounding.TWICE_UP, term + 2**31 - (nudge << 32)
    raised = bias if rounding is Rounding.TWICE_UP else bias + RAISED
    return Fields(raised, 2 * multiplier, term, down, up, nudge, rounding)


def _real(bias: np.ndarray, real: Real) -> Fields:
    bits = [of.view(np.uint32).astype(np.int64) for of in (real.scale, real.offset)]
    below = np.zeros_like(bias) if real.below is None else real.below.view(np.uint32).astype(np.int64)
    rounding = Rounding.REAL if real.below is None else Rounding.REAL_TWICE
    limit = np.zeros_like(bias) if real.limit is None else real.limit
    return Fields(bias + real.shift, bits[0], np.zeros_like(bias), limit, bits[1], below, rounding)
