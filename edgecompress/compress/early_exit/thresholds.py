"""From which probability on an exit is taken: the least that costs no more than a given drop, and what others cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecompress.evaluate.taken_exits import exits_taken
from edgecompress.graph.annotations import EXIT_STEPS

TABLE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # thresholds that reports show


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network with exits says of validation samples.

    confidence: [samples, exits], largest probability of each. right: bool [samples, exits + 1], whether each exit, and
    at the end the whole network, says what is right (without labels: what the whole network says). macs: of a sample
    that leaves at each of them.
    """

    confidence: np.ndarray
    right: np.ndarray
    macs: Sequence[int]

    def at(self, threshold: int) -> Operation:
        """What comes out when exits are taken from that many 256ths on."""
        taken = exits_taken(self.confidence, [threshold] * self.confidence.shape[1])
        shares = np.bincount(taken, minlength=len(self.macs)) / max(len(taken), 1)
        value = 100 * float(self.right[np.arange(len(taken)), taken].mean())
        return Operation(threshold, value, float(np.dot(shares, self.macs)), tuple(map(float, shares)))


@dataclass(frozen=True)
class Operation:
    """threshold: in 256ths. value: percent of samples that are right. macs: their mean. shares: of the samples that
    leave at each exit, and at the end."""

    threshold: int
    value: float
    macs: float
    shares: tuple[float, ...]


def lowest_threshold(answers: Answers, max_drop: float) -> int:
    """The lowest for which it and all above it lose at most max_drop percent of the samples against the whole network;
    256ths."""
    least = 100 * float(answers.right[:, -1].mean()) - max_drop
    found = EXIT_STEPS
    while found > 1 and answers.at(found - 1).value >= least - 1e-9:
        found -= 1
    return found


def table(answers: Answers, chosen: int) -> list[Operation]:
    """The usual thresholds and the chosen one, rising; the last is the whole network."""
    steps = {round(EXIT_STEPS * share) for share in TABLE} | {chosen}
    whole = Operation(EXIT_STEPS + 1, 100 * float(answers.right[:, -1].mean()), float(answers.macs[-1]), _last(answers))
    return [*(answers.at(step) for step in sorted(steps)), whole]


def _last(answers: Answers) -> tuple[float, ...]:
    return (*(0.0,) * (len(answers.macs) - 1), 1.0)
