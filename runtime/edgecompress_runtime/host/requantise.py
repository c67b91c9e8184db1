"""Per-channel requantisation as vectors need it, bit for bit `arithmetic.requantize` and `requantize_once`.

Rounded twice (gemmlowp): high = (acc << up) * m / 2**31, halves up, then high / 2**down, halves away from zero.
(acc << up + 1) * m + 2**31 has `high` as its upper half; halves away from zero are (high + 2**(down - 1) -
(high < 0)) >> down, in which acc < 0 may stand for high < 0 (they differ only where high = 0, which gives 0 either
way). Rounded once: see primitives/scaling.py.

A constant that is added after the product may as well be added to it, all 64 bits: the zero point, as zero << down,
and the halves. Where up = 0 and nothing below the zero point is kept, as with a ReLU, the case of acc < 0 falls away
too (it gives the zero point at most, however halves are rounded), and what is left is one floor, as floors nest:
(acc * m + 2**30 + 2**(30 + down) + (zero << 31 + down)) >> 31 + down.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

LIMIT = 2.0**31


class Rounding(Enum):
    """FLOOR: ((acc * m + term) >> 32) >> down. TWICE: (((2 * acc * m + term) >> 32) - (acc < 0)) >> down. TWICE_UP:
    so, with acc << up + 1 for 2 * acc, and only channels that are shifted down have a sign to take off."""

    FLOOR = "floor"
    TWICE = "twice"
    TWICE_UP = "twice_up"


def channel_fields(
    bias: np.ndarray, largest: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: int,
    *, low: int = -128, once: bool = False,
) -> tuple[np.ndarray, Rounding] | None:  # fmt: skip
    """(int32 [7, channels] in the order of `vectors`, how they are rounded).

    largest: bound of each accumulator's magnitude, bias included. low: of what is kept. None where a step would not
    fit in 32 bits.
    """
    up = np.maximum(shift.astype(np.int64), 0)
    down = np.maximum(-shift.astype(np.int64), 0) - (1 if once else 0)
    if (down < (1 if once else 0)).any() or (down > 30).any() or (multiplier < 0).any():
        return None
    half = np.where(down > 0, np.int64(1) << np.maximum(down - 1, 0), 0)
    term = half + (np.int64(zero) << down)
    reached = largest.astype(np.float64) * 2.0**up
    if (2.0 * reached >= LIMIT).any() or (np.abs(term) + reached + 1.0 >= LIMIT).any():
        return None
    if (np.abs(bias.astype(np.int64)) >= 2**31).any():
        return None
    nudge = np.where(down > 0, -1, 0)
    if once:
        rounding, term = Rounding.FLOOR, term << 32
    elif low >= zero and (down > 0).all():
        rounding, term, down = Rounding.FLOOR, (term << 31) + 2**30, down - 1
    else:
        rounding, term = Rounding.TWICE if (down > 0).all() else Rounding.TWICE_UP, (term << 32) + 2**31
    halves = (term & 0xFFFFFFFF).astype(np.uint32).view(np.int32), term >> 32
    return np.stack([bias, multiplier, *halves, down, up + 1, nudge]).astype(np.int32), rounding


def grouped(fields: np.ndarray, lanes: int) -> np.ndarray:
    """int32 [7, groups, channels] -> [groups, vectors, 7, lanes], flat; missing channels are zeros."""
    count, groups, channels = fields.shape
    vectors = -(-channels // lanes)
    padded = np.zeros((count, groups, vectors * lanes), np.int32)
    padded[:, :, :channels] = fields
    return padded.reshape(count, groups, vectors, lanes).transpose(1, 2, 0, 3).reshape(-1)
