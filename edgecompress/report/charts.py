"""Geometry of the page's charts: from figures to coordinates, which the templates draw as SVG.

Plotting libraries were weighed: their pages need megabytes of script, or colours that can't follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34  # of the plot's frame


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, in pixels, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """Linear from low to high, over pixels start to end."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...]

    def __call__(self, value: float) -> float:
        """Where a value lies, in pixels."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def axis(
    values: Sequence[float], start: float, end: float, *, count: int = 5, zero: bool = False, unit: str = ""
) -> Axis:
    """Over the values, with about `count` round ticks."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if zero:
        low = min(low, 0.0)
    if high - low < 1e-12 * max(abs(high), 1.0):
        low, high = low - 0.01 * (abs(low) or 1), high + 0.01 * (abs(high) or 1)
    step = _round_step((high - low) / count)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    bare = Axis(low, high, start, end, ())
    marks = [low + i * step for i in range(round((high - low) / step) + 1)]
    return Axis(low, high, start, end, tuple(Tick(bare(m), _label(m, step) + unit) for m in marks))


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _label(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}" if digits < 5 else f"{value:.1e}"


@dataclass(frozen=True)
class Line:
    """A curve: its points as SVG has them, and its CSS class."""

    name: str
    points: str
    style: str


@dataclass(frozen=True)
class Lines:
    """Curves over 1, 2, .. in one frame."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]


def lines(curves: Sequence[tuple[str, str, Sequence[float | None]]]) -> Lines:
    """curves: (name, CSS class, values); None leaves a point out."""
    longest = max(len(values) for _, _, values in curves)
    x = axis([1, max(longest, 2)], LEFT, WIDTH - RIGHT, count=min(max(longest, 2) - 1, 8))
    y = axis([v for _, _, values in curves for v in values if v is not None], HEIGHT - BOTTOM, TOP)
    return Lines(
        x,
        y,
        tuple(
            Line(name, " ".join(f"{x(i)},{y(v)}" for i, v in enumerate(values, 1) if v is not None), style)
            for name, style, values in curves
        ),
    )


@dataclass(frozen=True)
class Dot:
    """A point of a scatter plot with its label; coordinates in pixels."""

    x: float
    y: float
    name: str
    style: str
    anchor: str
    label_y: float


@dataclass(frozen=True)
class Scatter:
    """Sizes across, scores upwards. frontier: points of a line, as SVG has them."""

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]
    frontier: str


def scatter(points: Sequence[tuple[str, str, float, float]]) -> Scatter:
    """points: (name, CSS class, size in bytes, score). The frontier joins those that no other beats in both."""
    x = axis([p[2] / 1000 for p in points], LEFT, WIDTH - RIGHT - 8, zero=True, unit=" kB")
    y = axis([p[3] for p in points], HEIGHT - BOTTOM, TOP)
    placed: list[Dot] = []
    used: list[tuple[float, float]] = []
    for name, style, size, score in sorted(points, key=lambda p: p[2]):
        left, top = x(size / 1000), y(score)
        label = top + 4
        while any(abs(label - other) < 13 and abs(left - at) < 160 for at, other in used):
            label += 13
        used.append((left, label))
        placed.append(Dot(left, top, name, style, "end" if left > WIDTH * 0.6 else "start", label))
    best, frontier = -math.inf, []
    for _, _, size, score in sorted(points, key=lambda p: (p[2], -p[3])):
        if score > best:
            best = score
            frontier.append(f"{x(size / 1000)},{y(score)}")
    return Scatter(x, y, tuple(placed), " ".join(frontier))


@dataclass(frozen=True)
class Rectangle:
    """A box with the title that is shown when the pointer rests on it; in pixels."""

    x: float
    y: float
    width: float
    height: float
    title: str
    label: str
    shade: int


@dataclass(frozen=True)
class Rectangles:
    """Boxes in one frame."""

    x: Axis
    y: Axis
    rectangles: tuple[Rectangle, ...]


def rectangles(boxes: Sequence[tuple[str, float, float, float, float]]) -> Rectangles:
    """boxes: (name, first step, step after the last, lowest, highest)."""
    x = axis([0.0, *(b[2] for b in boxes)], LEFT, WIDTH - RIGHT, count=8, zero=True)
    y = axis([b[4] / 1000 for b in boxes], HEIGHT - BOTTOM, TOP, zero=True, unit=" kB")
    drawn = []
    for i, (name, first, end, low, high) in enumerate(boxes):
        left, right, top, bottom = x(first), x(end), y(high / 1000), y(low / 1000)
        fits = right - left > 7 * min(len(name), 12) and bottom - top > 14
        drawn.append(
            Rectangle(left, top, max(right - left - 1, 1), max(bottom - top - 1, 1), name, name if fits else "", i % 4)
        )
    return Rectangles(x, y, tuple(drawn))


def steps(counts: Sequence[int], highest: int, width: int, height: int) -> str:
    """A histogram's outline as an SVG path, its largest possible bin `height` high. Heights are square roots: one full
    bin (the zeros of a pruned weight) does not hide the others."""
    scale = height / math.sqrt(max(highest, 1))
    step = width / len(counts)
    tops = [round(height - math.sqrt(n) * scale, 1) for n in counts]
    return f"M0 {height}" + "".join(f"V{top}H{round((i + 1) * step, 1)}" for i, top in enumerate(tops)) + f"V{height}Z"
