"""Requantization by one product in float32: bit for bit as on integers (x86_requantize.py), in a third of the time.

What is stored of a channel only says between which two of some 255 boundaries its accumulator lies. So a product needs
not be right, only on the right side of each: (acc + shift) * scale + offset, rounded once to a whole number by a fused
multiply-add to 1.5 * 2**23, is so for some scale near the real one, some whole shift and whole offset. They are
searched here, and tried at every boundary. At a scale of 2**-10 all boundaries together leave the product some 2**-18
of room; a shift of up to 2**23 moves it in steps that are finer.

Halves away from zero put the boundaries of negative accumulators elsewhere. Where those are kept, both signs have an
offset of their own, which is no whole number, and what is stored is rounded twice: as a float, and to a whole number.
Where no float is near enough to the scale for all boundaries, so have the lower ones and the upper ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from typing import Any

import numpy as np

from edgecompress_runtime.kernels.arithmetic import requantized

MAGIC = 1.5 * 2**23  # floats around it are whole numbers
MOST = 2**23  # of an accumulator, and of its shift: their sum is a float without rounding
FARTHEST = 2**20  # of what is stored, before it is clamped
FINEST = 2.0**-40  # of an offset: so that its sum with a product is a float64 without rounding, and rounded once
NEIGHBOURS = range(-12, 13)  # floats about the real scale
CHANNELS, PART = 1024, 64  # at most; looked at together
KEPT = 64  # layers
PLACES = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)  # of an offset in the range that it may have


@dataclass(frozen=True, eq=False)
class Real:
    """[channels]. shift: int64. scale, offset: float32; MAGIC is part of an offset without `below`. below: float32, the
    offset of shifted accumulators less than `limit`, int64; None: they have the same."""

    shift: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    below: np.ndarray | None = None
    limit: np.ndarray | None = None


def search(largest: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, zero: int, low: int) -> Real | None:
    """Like `x86_requantize.channel_fields`; all arrays are int64 [channels].

    None where a channel has no such product, or where there are more channels than pay.
    """
    if largest.size > CHANNELS or largest.max() >= MOST:
        return None
    if (largest * multiplier * 2.0 ** (shift - 31) >= FARTHEST).any():
        return None
    return _found(largest.tobytes(), multiplier.tobytes(), shift.tobytes(), zero, low)


@lru_cache(KEPT)  # threads that share a layer ask for the same
def _found(largest: bytes, multiplier: bytes, shift: bytes, zero: int, low: int) -> Real | None:
    columns = [np.frombuffer(column, np.int64).reshape(-1, 1) for column in (largest, multiplier, shift)]
    parts = [_Tests([c[at : at + PART] for c in columns], zero, low) for at in range(0, len(columns[0]), PART)]
    for way in (_Tests.one_offset, _Tests.two_offsets):
        made: list[Real] = []
        for part in parts:
            if (real := way(part)) is None:
                break
            made.append(real)
        else:
            whole: dict[str, Any] = {}
            for name in (f.name for f in dataclass_fields(Real)):
                columns_of = [getattr(real, name) for real in made]
                whole[name] = None if columns_of[0] is None else np.concatenate(columns_of)
            return Real(**whole)
    return None


class _Tests:
    """What a product has to hold: at `high` it is `value` or more, at `low` less. Arrays [channels, tests]."""

    def __init__(self, columns: Sequence[np.ndarray], zero: int, least: int) -> None:
        """columns: largest, multiplier, shift, each [channels, 1]. least: of what is kept."""
        largest, multiplier, shift = columns

        def exact(acc: np.ndarray) -> np.ndarray:
            return requantized(acc, multiplier, shift) + zero

        values = np.arange(least + 1, 128)
        before = np.broadcast_to(-largest - 1, (len(largest), len(values)))
        first = -before  # accumulator that gives a value
        while (first - before > 1).any():
            middle = (before + first) >> 1
            reached = exact(middle) >= values
            before, first = np.where(reached, before, middle), np.where(reached, middle, first)
        # the ends are kept as well, unless what comes there is clamped
        ends = np.clip(exact(-largest), least, 127), np.clip(exact(largest), least, 127) + 1
        self.high, self.low = np.hstack([first, -largest]), np.hstack([first - 1, largest])
        self.value = [np.hstack([np.broadcast_to(values, first.shape), end]) for end in ends]
        inside = (first > -largest) & (first <= largest)
        self.holds = np.hstack([inside, ends[0] > least]), np.hstack([inside, ends[1] <= 127])
        smallest = np.min(first, axis=1, where=inside, initial=MOST)[:, None]
        greatest = np.max(first, axis=1, where=inside, initial=-MOST)[:, None]
        # the signs' offsets differ; else the middle is the best place to change it
        self.split = np.where(smallest <= 0, 0, (smallest + greatest) >> 1)
        self.room, self.zero = MOST - largest[:, 0], zero
        self.scale = (multiplier * 2.0 ** (shift - 31.0)).astype(np.float32)

    def one_offset(self) -> Real | None:
        scale, (least, most) = self._scale([self.holds])
        shifts, offsets = [], []
        for step, middle, slack, room in zip(scale, (least + most) / 2, (most - least) / 4, self.room):
            found = _shift(float(step), float(middle), float(slack), int(room)) if slack > 0 else None
            if found is None:
                return None
            shifts.append(found)
            offsets.append(round(float(middle) - found * float(step)))
        shift, offset = np.array(shifts), np.array(offsets)

        def product(acc: np.ndarray) -> np.ndarray:
            return np.rint((acc + shift[:, None]) * scale[:, None] + offset[:, None])

        made = Real(shift, scale.astype(np.float32), (MAGIC + offset).astype(np.float32))
        return made if self._right(product).all() else None

    def two_offsets(self) -> Real | None:
        upper = self.high >= self.split, self.low >= self.split
        halves = [tuple(h & (u == side) for h, u in zip(self.holds, upper)) for side in (True, False)]
        scale, *ranges = self._scale(halves)
        shift = np.round(np.mean(ranges[0], axis=0) / np.where(scale > 0, scale, np.inf))
        shift = np.where(np.abs(shift) < self.room, shift, 0).astype(np.int64)  # 0: an offset may be larger as well
        offsets, right = np.zeros((2, len(scale)), np.float32), np.zeros(len(scale), bool)
        for place in PLACES:
            wanted = np.array([least + place * (most - least) - shift * scale for least, most in ranges])
            tried = (np.round(wanted / FINEST) * FINEST).astype(np.float32)

            def product(acc: np.ndarray, of: np.ndarray = tried) -> np.ndarray:
                offset = np.where(acc < self.split, of[1, :, None], of[0, :, None])
                return np.rint(((acc + shift[:, None]) * scale[:, None] + offset).astype(np.float32))

            good = self._right(product) & ~right
            offsets[:, good], right = tried[:, good], right | good
        offset, below = offsets
        made = Real(shift, scale.astype(np.float32), offset, below, self.split[:, 0] + shift)
        return made if right.all() else None

    def _scale(self, parts: list[tuple[np.ndarray, ...]]) -> tuple[Any, ...]:
        """The scale, a float32 in float64, that leaves an offset of each part most room; the parts' ranges."""
        best: tuple[Any, ...] = ()
        for number in sorted(NEIGHBOURS, key=abs):
            scale = (self.scale + number * np.spacing(self.scale))[:, 0].astype(np.float64)
            ranges = np.array([self._range(scale, part) for part in parts])
            if best:
                better = np.min(ranges[:, 1] - ranges[:, 0], axis=0) > np.min(best[1][:, 1] - best[1][:, 0], axis=0)
                scale, ranges = np.where(better, scale, best[0]), np.where(better, ranges, best[1])
            best = scale, ranges
        return best[0], *best[1]

    def _range(self, scale: np.ndarray, holds: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Where offsets of the tests that hold are: [channels], the least and the most."""
        over, under = (value - 0.5 - acc * scale[:, None] for value, acc in zip(self.value, (self.high, self.low)))
        return (
            np.max(over, axis=1, where=holds[0], initial=self.zero - 0.5),
            np.min(under, axis=1, where=holds[1], initial=self.zero + 0.5),
        )

    def _right(self, product: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """bool [channels]"""
        over, under = product(self.high) >= self.value[0], product(self.low) < self.value[1]
        return (over | ~self.holds[0]).all(1) & (under | ~self.holds[1]).all(1)


def _shift(scale: float, target: float, slack: float, most: int) -> int | None:
    """The whole number n, of `most` at most, for which n * scale is within `slack` of the target and some whole number.
    By what multiples of the scale leave of one, smaller and smaller as in Euclid's algorithm."""
    found, rest = 0, target - round(target)
    (before, left), (count, part) = (0, 1.0), (1, scale - round(scale))
    while abs(rest) > slack:
        if part == 0 or abs(count) > most:
            return None
        times = round(rest / part)
        found, rest = found + times * count, rest - times * part
        turns = round(left / part)
        (before, left), (count, part) = (count, part), (before - turns * count, left - turns * part)
    return found if abs(found) < most else None
