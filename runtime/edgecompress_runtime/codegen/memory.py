"""The static memory plan: where in one arena each computed tensor and scratch buffer lies.

Two buffers may share bytes when no step needs both. A step's output may also lie over its input where the step
reads every byte before it writes there ("overlap": in place, or trailing behind the reads by a distance).
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 16  # bytes; one vector of Helium or NEON
CACHE_LINE = 64  # bytes
ROUNDS = 400  # of reordering; a plan of 30 buffers takes about 0.1 s


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that are needed from step `first` to step `last`, both included."""

    key: Hashable
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Overlap:
    """`written` may lie over `read` if it starts at least `distance` bytes in front of it."""

    written: Hashable
    read: Hashable
    distance: int


@dataclass(frozen=True)
class Layout:
    """Byte offsets by key; size: bytes of the arena."""

    offsets: Mapping[Hashable, int]
    size: int


def arrange(buffers: Iterable[Buffer], overlaps: Iterable[Overlap] = (), alignment: int = ALIGNMENT) -> Layout:
    """The smallest layout found: greedy by size first, then by seeded changes of that order.

    Offsets are multiples of `alignment`. An overlap counts only where its input's last step is its output's first.
    """
    allowed = {(o.written, o.read): o.distance for o in overlaps}
    order = sorted(buffers, key=lambda b: (-b.size, -b.first))
    best, best_order = _placed(order, allowed, alignment), order
    for start in (sorted(order, key=lambda b: -b.first), sorted(order, key=lambda b: b.first)):
        if (layout := _placed(start, allowed, alignment)).size < best.size:
            best, best_order = layout, start
    bound = _lower_bound(order, allowed)
    generator = random.Random(0)
    for _ in range(ROUNDS if len(order) > 2 else 0):
        if best.size <= bound:
            break
        changed = list(best_order)
        changed.insert(generator.randrange(len(changed)), changed.pop(generator.randrange(len(changed))))
        if (layout := _placed(changed, allowed, alignment)).size <= best.size:
            best, best_order = layout, changed
    return best


def _lower_bound(buffers: Sequence[Buffer], allowed: Mapping[tuple[Hashable, Hashable], int]) -> int:
    """What the busiest step needs, if everything that may overlap did so fully."""
    shared = {key for key, _ in allowed}
    steps = range(max((b.last for b in buffers), default=-1) + 1)
    return max(
        (
            sum(b.size for b in buffers if b.first <= s <= b.last and not (b.first == s and b.key in shared))
            for s in steps
        ),
        default=0,
    )


def _placed(order: Sequence[Buffer], allowed: Mapping[tuple[Hashable, Hashable], int], alignment: int) -> Layout:
    """Each buffer at the lowest offset that the ones before it leave."""
    placed: list[tuple[Buffer, int]] = []
    for buffer in order:
        forbidden = sorted(_forbidden(buffer, other, at, allowed) for other, at in placed if _meet(buffer, other))
        offset = 0
        for low, high in forbidden:  # open intervals of offsets
            if low < offset < high:
                offset = -(-high // alignment) * alignment
        placed.append((buffer, offset))
    return Layout({b.key: at for b, at in placed}, max((at + b.size for b, at in placed), default=0))


def _meet(a: Buffer, b: Buffer) -> bool:
    return a.first <= b.last and b.first <= a.last


def _forbidden(new: Buffer, old: Buffer, at: int, allowed: Mapping[tuple[Hashable, Hashable], int]) -> tuple[int, int]:
    """Offsets at which `new` would collide with `old`, which lies at `at`."""
    low, high = at - new.size, at + old.size
    if new.first == old.last and (distance := allowed.get((new.key, old.key))) is not None:
        low = max(low, at - distance)
    if old.first == new.last and (distance := allowed.get((old.key, new.key))) is not None:
        high = min(high, at + distance)
    return low, high
