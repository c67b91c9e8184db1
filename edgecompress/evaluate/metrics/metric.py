"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Score = Callable[[Sequence[np.ndarray], np.ndarray], float]


@dataclass(frozen=True)
class Metric:
    """Call it with outputs, [n, ...] each, and labels [n, ...] for a number.

    name: as in the recipe. lower_is_better: as of an error.
    """

    name: str
    score: Score
    lower_is_better: bool = False

    def __call__(self, outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
        """The score."""
        return self.score(outputs, labels)

    def gain(self, value: float) -> float:
        """The value, or its negative, so that more is better."""
        return -value if self.lower_is_better else value

    def lost(self, reference: float, value: float) -> float:
        """How much worse `value` is than `reference`; negative when it is better."""
        return self.gain(reference) - self.gain(value)
