"""Per-channel requantisation as vectors need it, bit for bit `arithmetic.requantize` and `requantize_once`.

Rounded twice (gemmlowp): high = (acc << up) * m / 2**31, halves up, then high / 2**down, halves away from zero.
(acc << up + 1) * m + 2**31 has `high` as its upper half; halves away from zero are (high + 2**(down - 1) -
(high < 0)) >> down, in which acc < 0 may stand for high < 0 (they differ only where high = 0, which gives 0 either
way), and the zero point joins as zero << down. Rounded once: see primitives/scaling.py.
"""

from __future__ import annotations

import numpy as np

LIMIT = 2.0**31


def channel_fields(
    bias: np.ndarray, largest: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: int, *, once: bool = False
) -> tuple[np.ndarray, bool] | None:
    """(int32 [6, channels] in the order of `vectors`, whether all are shifted down only).

    largest: bound of each accumulator's magnitude, bias included. None where a step would not fit in 32 bits.
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
    fields = np.stack([bias, multiplier, term, down, up + 1, np.where(down > 0, -1, 0)]).astype(np.int32)
    return fields, once or bool((shift < 0).all())


def grouped(fields: np.ndarray, lanes: int) -> np.ndarray:
    """int32 [6, groups, channels] -> [groups, vectors, 6, lanes], flat; missing channels are zeros."""
    count, groups, channels = fields.shape
    vectors = -(-channels // lanes)
    padded = np.zeros((count, groups, vectors * lanes), np.int32)
    padded[:, :, :channels] = fields
    return padded.reshape(count, groups, vectors, lanes).transpose(1, 2, 0, 3).reshape(-1)
