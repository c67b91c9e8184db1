"""From which probability on each exit is taken: at least cost for a given drop, and what others cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from edgecompress.evaluate.taken_exits import exits_taken
from edgecompress.graph.annotations import EXIT_STEPS

ROUNDING = 1e-9  # percent: a limit that is met exactly is met
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

    def at(self, thresholds: Sequence[int]) -> Operation:
        """What comes out when each exit is taken from that many 256ths on."""
        taken = exits_taken(self.confidence, thresholds)
        shares = np.bincount(taken, minlength=len(self.macs)) / max(len(taken), 1)
        value = 100 * float(self.right[np.arange(len(taken)), taken].mean())
        return Operation(tuple(thresholds), value, float(np.dot(shares, self.macs)), tuple(map(float, shares)))

    def along(self, thresholds: tuple[int, ...], place: int) -> tuple[np.ndarray, np.ndarray]:
        """(percent of samples that are right, mean multiply-accumulates), float64 [256]: with thresholds of 1 to 256 of
        the exit at that place, and those of the others as they are."""
        n, steps = len(self.right), np.floor(self.confidence[:, place] * EXIT_STEPS).astype(int)
        on = exits_taken(self.confidence, _with(thresholds, place, EXIT_STEPS + 1))  # where samples leave otherwise
        came, found = on > place, []
        for gives in (100 * self.right, np.broadcast_to(self.macs, self.right.shape)):
            stays = gives[np.arange(n), on].astype(np.float64)
            changes = np.bincount(steps[came], (gives[:, place] - stays)[came], minlength=EXIT_STEPS + 1)
            found.append((stays.sum() + np.cumsum(changes[::-1])[::-1][1:]) / n)
        return found[0], found[1]

    def whole(self) -> Operation:
        """What comes out when no exit is taken."""
        shares = (*(0.0,) * (len(self.macs) - 1), 1.0)
        return Operation(None, 100 * float(self.right[:, -1].mean()), float(self.macs[-1]), shares)


@dataclass(frozen=True)
class Operation:
    """thresholds: of each exit, in 256ths; None where none is taken. value: percent of samples that are right. macs:
    their mean. shares: of the samples that leave at each exit, and at the end."""

    thresholds: tuple[int, ...] | None
    value: float
    macs: float
    shares: tuple[float, ...]


def cheapest_thresholds(answers: Answers, max_drop: float) -> tuple[int, ...]:
    """A threshold for each exit, in 256ths, with which at most max_drop percent of the samples are lost against the
    whole network, at the least mean multiply-accumulates.

    As few samples lose by chance what more would show, higher thresholds have to keep the limit too: all above a pair,
    with the others as they are. Pairs are chosen from all 256 x 256, beginning with the lowest common threshold, until
    none costs less; two exits thus get the best of all.
    """
    exits = answers.confidence.shape[1]
    found = (lowest_threshold(answers, max_drop),) * exits
    least, better = answers.whole().value - max_drop, exits > 1
    while better:
        before = answers.at(found).macs
        for pair in combinations(range(exits), 2):
            found = _best_pair(answers, least, found, pair)
        better = exits > 2 and answers.at(found).macs < before
    return found


def lowest_threshold(answers: Answers, max_drop: float) -> int:
    """The lowest of all exits for which it and all above it lose at most max_drop percent of the samples against the
    whole network; 256ths."""
    least, exits = answers.whole().value - max_drop, answers.confidence.shape[1]
    found = EXIT_STEPS
    while found > 1 and answers.at([found - 1] * exits).value >= least - ROUNDING:
        found -= 1
    return found


def table(answers: Answers, chosen: Sequence[int]) -> list[Operation]:
    """The usual thresholds, each of all exits, and the chosen ones, by rising cost; the last is the whole network."""
    exits = answers.confidence.shape[1]
    rows = {(round(EXIT_STEPS * share),) * exits for share in TABLE} | {tuple(chosen)}
    return [*sorted(map(answers.at, rows), key=lambda row: (row.macs, row.thresholds)), answers.whole()]


def _best_pair(answers: Answers, least: float, thresholds: tuple[int, ...], pair: tuple[int, int]) -> tuple[int, ...]:
    """The thresholds with those of two exits chosen again. least: percent of the samples that have to be right."""
    rows = [answers.along(_with(thresholds, pair[0], t), pair[1]) for t in range(1, EXIT_STEPS + 1)]
    values, macs = (np.stack(part) for part in zip(*rows))
    keep = values >= least - ROUNDING
    for axis in (0, 1):
        keep = np.flip(np.logical_and.accumulate(np.flip(keep, axis), axis), axis)
    first, second = np.unravel_index(np.argmin(np.where(keep, macs, np.inf)), macs.shape)
    if not keep[first, second] or macs[first, second] >= answers.at(thresholds).macs - ROUNDING:
        return thresholds
    return _with(_with(thresholds, pair[0], 1 + int(first)), pair[1], 1 + int(second))


def _with(thresholds: tuple[int, ...], exit_: int, threshold: int) -> tuple[int, ...]:
    return (*thresholds[:exit_], threshold, *thresholds[exit_ + 1 :])
