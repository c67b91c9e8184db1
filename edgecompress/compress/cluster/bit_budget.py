"""Chooses bits for each layer by one price of a bit, which is searched until the whole model meets a budget.

At the best allocation the last bit buys the same everywhere (Y. Shoham and A. Gersho, "Efficient bit
allocation for an arbitrary set of quantizers", IEEE Trans. ASSP 36(9), 1988). What it buys is noise relative
to each layer's output: layers in a chain pass their noise-to-signal ratios on, and these add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

RUNS = 7
LOWEST, HIGHEST = -24.0, 2.0  # log2 of a price: noise-to-signal ratio for a bit more in every weight
SLOPE = 0.5  # bits a weight for each factor of 2 in price, since a bit divides noise by 4; less at few bits
LONGEST_STEP = 6.0
MARGIN = 1 / 8  # of the interval left, that the next price keeps from its ends


@dataclass(frozen=True)
class Found(Generic[T]):
    """result: of the last run within the budget, or else of the one least over it."""

    result: T
    within: bool


def search(
    run: Callable[[float], T], excess: Callable[[T], float], start: float, *, rising: bool, close: float
) -> Found[T]:
    """Run with different prices until the result is within the budget and close to it.

    run: of log2(price). excess: bits a weight that a result is over the budget, 0 or less being within;
    rises with the price if `rising` (noise does), else falls (size does). close: how far within is enough.
    """
    direction = 1.0 if rising else -1.0
    tried: list[tuple[float, float, T]] = []  # excess, log2 price, result
    at = min(max(start, LOWEST), HIGHEST)
    for _ in range(RUNS):
        result = run(at)
        tried.append((excess(result), at, result))
        if -close <= tried[-1][0] <= 0:
            break
        step = -direction * (tried[-1][0] + close / 2) / _slope(tried)
        wanted = at + min(max(step, -LONGEST_STEP), LONGEST_STEP)
        ends = [[price for over, price, _ in tried if (over <= 0) is inside] for inside in (True, False)]
        if all(ends):
            low, high = sorted((max(ends[0]), min(ends[1])) if rising else (min(ends[0]), max(ends[1])))
            keep = MARGIN * (high - low)
            wanted = min(max(wanted, low + keep), high - keep)
        wanted = min(max(wanted, LOWEST), HIGHEST)
        if any(abs(wanted - price) < 1e-3 for _, price, _ in tried):
            break
        at = wanted
    within = [attempt for attempt in tried if attempt[0] <= 0]
    choose = max if within else min
    _, _, best = choose(within or tried, key=lambda attempt: attempt[0])
    return Found(best, bool(within))


def _slope(tried: list[tuple[float, float, T]]) -> float:
    """How much excess changes with log2 of the price, between the last two attempts."""
    if len(tried) < 2:
        return SLOPE
    (a, x, _), (b, y, _) = tried[-2:]
    return min(max(abs((b - a) / (y - x)), SLOPE / 10), 2 * SLOPE)
