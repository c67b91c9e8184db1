"""How well an artifact's output follows the float model's, measured by slice.

One output may hold quantities of different size: the boxes and the scores of a detector, or one large channel among
many small ones. A single ratio says nothing of the small ones, so each has a ratio of its own. Which positions belong
together is found from the float model's output alone (`slices`); any artifact's output is then measured by those.

Two positions along an axis belong to different slices where their root mean squares differ by more than RATIO. That
holds of typical values too: the rows of an image in which something happened to be are no quantity of their own. Where
many positions differ slightly, as the channels of a feature map do, only a gap in the order of their sizes divides
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATIO = 8.0  # of root mean squares, beyond which positions are slices of their own
TYPICAL_RATIO = RATIO / 2  # of medians without zeros, which has to hold as well
FEW = 16  # positions: each is compared with the largest of its slice, and may be a slice alone
LEAST_SHARE = 1 / 16  # of more positions: as many are smaller than a gap that divides them
LEAST_VALUES = 8  # at each position, to know how large they are
LARGEST_PROBE = 1 << 20  # values that slices are found from
BLOCK = 1 << 20  # values that are measured at a time
SMALLEST = 1e-6  # of the largest value: what is smaller at every sample is rounding, and no slice
SMALLEST_SHARE = 1 / 8  # the same among probabilities: classes that the data lacks are no slice
NOTHING = 1e-6  # error of a slice that is zero everywhere, up to which it counts as equal
STANDARD_ERRORS = 2.7  # below a ratio, from where nine of ten drawings of a dozen samples are above the true one


@dataclass(frozen=True)
class Slice:
    """Positions along an axis of one output; all of the output when axis is None.

    output: its name. axis: counted as in the model. positions: in rising order.
    """

    output: str
    axis: int | None = None
    positions: tuple[int, ...] = ()

    def __str__(self) -> str:
        """For example "output 'y', positions 4 to 83 of axis 1"."""
        if self.axis is None:
            return f"output {self.output!r}"
        return f"output {self.output!r}, {_in_words(self.positions)} of axis {self.axis}"


@dataclass(frozen=True)
class Quality:
    """How well one slice of an artifact's output follows the float model's.

    snr_db: signal-to-noise ratio of a float output; inf where all values are equal, -inf where nothing is left of the
    signal or a value is not finite that should be. equal_percent: share of an integer output's values that are equal.
    Exactly one of the two is given. least_db: how low the ratio of many samples like these may be, as far as these
    tell; None for fewer than two.
    """

    slice: Slice
    snr_db: float | None = None
    equal_percent: float | None = None
    least_db: float | None = None


@dataclass(frozen=True)
class Slices:
    """The slices of one output. offset: axes that the array has in front of the model's."""

    parts: tuple[Slice, ...]
    offset: int = 0

    @property
    def axis(self) -> int | None:
        """The axis of the array that is divided."""
        axis = self.parts[0].axis
        return None if axis is None else axis + self.offset


def slices(name: str, reference: np.ndarray, *, stacked: bool = False) -> Slices:
    """The slices of an output, largest quantity first, from the float model's values [n, ...].

    stacked: whether axis 0 is added to the output's own axes, one for each run of the model.
    """
    offset = int(stacked)
    best: tuple[float, Slices] = (0.0, Slices((Slice(name),), offset))
    if reference.dtype.kind != "f" or not reference.size:
        return best[1]
    probe = _probe(reference)
    for axis in range(1, probe.ndim):
        groups, ratio = _groups(probe, axis)
        if ratio > best[0]:
            parts = tuple(Slice(name, axis - offset, tuple(sorted(map(int, group)))) for group in groups)
            best = (ratio, Slices(parts, offset))
    return best[1]


class Meter:
    """Measures one output by slice, batch after batch."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        count = len(slices.parts)
        self._equal, self._total = (np.zeros(count) for _ in range(2))
        self._rows: list[np.ndarray] = []  # [2, n, slices]: signal and noise of each sample
        self._integer = False

    def update(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Adds samples [n, ...] of the float model's output, and of the artifact's."""
        self._integer = expected.dtype.kind != "f"
        rows = max(BLOCK // max(expected[:1].size, 1), 1)
        for start in range(0, len(expected), rows):
            self._update(expected[start : start + rows], found[start : start + rows])

    def qualities(self) -> tuple[Quality, ...]:
        """One for each slice, in their order."""
        if self._integer:
            shares = 100.0 * self._equal / np.maximum(self._total, 1)
            return tuple(Quality(part, equal_percent=float(s)) for part, s in zip(self._slices.parts, shares))
        signal, noise = np.concatenate(self._rows, axis=1) if self._rows else np.zeros((2, 0, len(self._slices.parts)))
        return tuple(
            _quality(part, signal[:, i], noise[:, i], float(self._total[i]))
            for i, part in enumerate(self._slices.parts)
        )

    def _update(self, expected: np.ndarray, found: np.ndarray) -> None:
        if self._integer:
            self._equal += self._sums(expected == found).sum(axis=0)
        else:
            a, b = expected.astype(np.float64), found.astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                noise = np.square(a - b)
            noise[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0  # also infinities of the same sign
            noise[np.isnan(noise)] = np.inf
            with np.errstate(over="ignore"):
                signal = np.square(np.where(np.isfinite(a), a, 0.0))
                self._rows.append(np.stack([self._sums(signal), self._sums(noise)]))
        self._total += self._counts(expected.shape)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """[n, slices]: the sum over each slice of each sample."""
        axis = self._slices.axis
        if axis is None:
            return values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)[:, None]
        along = values.sum(axis=tuple(i for i in range(1, values.ndim) if i != axis), dtype=np.float64)
        return np.stack([along[:, list(part.positions)].sum(axis=1) for part in self._slices.parts], axis=1)

    def _counts(self, shape: tuple[int, ...]) -> np.ndarray:
        axis, total = self._slices.axis, int(np.prod(shape))
        if axis is None:
            return np.array([total])
        return np.array([total // shape[axis] * len(part.positions) for part in self._slices.parts])


def qualities(
    outputs: Sequence[Slices], expected: Sequence[np.ndarray], found: Sequence[np.ndarray]
) -> tuple[Quality, ...]:
    """The quality of every slice of every output, [n, ...] each, in the outputs' order."""
    result: list[Quality] = []
    for part, a, b in zip(outputs, expected, found, strict=True):
        meter = Meter(part)
        meter.update(a, b)
        result += meter.qualities()
    return tuple(result)


def worst_snr_db(measured: Sequence[Quality]) -> float | None:
    """The lowest signal-to-noise ratio; None without float outputs."""
    return min((q.snr_db for q in measured if q.snr_db is not None), default=None)


def worst_equal_percent(measured: Sequence[Quality]) -> float | None:
    """The lowest share of equal values; None without integer outputs."""
    return min((q.equal_percent for q in measured if q.equal_percent is not None), default=None)


def _quality(part: Slice, signal: np.ndarray, noise: np.ndarray, count: float) -> Quality:
    """Of a slice of float values, from sums of squares of each sample [n], over so many values in all."""
    snr = _decibels(float(signal.sum()), float(noise.sum()), count)
    return Quality(part, snr_db=snr, least_db=None if len(signal) < 2 else snr - _uncertainty(signal, noise, snr))


def _uncertainty(signal: np.ndarray, noise: np.ndarray, snr_db: float) -> float:
    """How far below its ratio that of many samples may lie, in dB; 0 where it is infinite.

    The standard error is that of a ratio of sums, carried over to its logarithm (Cochran, Sampling Techniques, 1977,
    section 2.11). Errors have long tails: a few samples have most of the noise, and a dozen often has none of them. So
    there are more standard errors to it than a normal distribution asks for.
    """
    if not np.isfinite(snr_db):
        return 0.0
    n, ratio = len(signal), noise.sum() / signal.sum()
    relative = float(np.sqrt(n / (n - 1) * np.square(noise - ratio * signal).sum()) / noise.sum())
    return STANDARD_ERRORS * relative * 10 / float(np.log(10))


def _decibels(signal: float, noise: float, count: float) -> float:
    """10 log10(signal / noise), of sums of squares over so many values."""
    if noise == 0 or (signal == 0 and noise <= NOTHING**2 * count):
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 and np.isfinite(noise) else float("-inf")


def _probe(reference: np.ndarray) -> np.ndarray:
    """Samples that are spread over all of them, in float64; values that are not finite count as zero."""
    rows = max(min(LARGEST_PROBE // max(reference[:1].size, 1), len(reference)), 1)
    chosen = np.unique(np.linspace(0, len(reference) - 1, rows).round().astype(int))
    return np.nan_to_num(reference[chosen].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _groups(probe: np.ndarray, axis: int) -> tuple[list[list[int]], float]:
    """(positions of each slice along the axis, largest first; how many times larger the first is than the last).

    The ratio is 0 where nothing is divided.
    """
    values = np.moveaxis(probe, axis, 0).reshape(probe.shape[axis], -1)
    count = len(values)
    if count < 2 or values.shape[1] < LEAST_VALUES or _are_shares(probe, axis):
        return [], 0.0
    rms, peak, typical = np.sqrt(np.mean(np.square(values), axis=1)), np.abs(values).max(axis=1), _typical(values)
    probabilities = probe.min() >= 0 and 0.5 <= peak.max() <= 1
    floor = peak.max() * (SMALLEST_SHARE if probabilities else SMALLEST)
    order = np.argsort(-rms, kind="stable")
    least = 1 if count <= FEW else max(int(count * LEAST_SHARE), 1)
    groups = [[int(order[0])]]
    for i in range(1, count):
        group, rest = groups[-1], order[i:]
        compared = group[0] if count <= FEW else group[-1]
        if (
            rms[rest[0]] * RATIO < rms[compared]
            and len(rest) >= least
            and np.median(typical[rest]) * TYPICAL_RATIO < np.median(typical[group])
            and peak[rest].max() > floor
        ):
            groups.append([])
        groups[-1].append(int(order[i]))
    smallest = float(np.sqrt(np.mean(np.square(rms[groups[-1]]))))
    return groups, float(rms[order[0]]) / smallest if len(groups) > 1 else 0.0


def _are_shares(probe: np.ndarray, axis: int) -> bool:
    """Whether positions along the axis share 1 among them, as behind a Softmax: then they are one quantity."""
    return bool(probe.min() >= 0 and np.allclose(probe.sum(axis=axis), 1.0, rtol=0, atol=1e-3))


def _typical(values: np.ndarray) -> np.ndarray:
    """The median magnitude of each row of [positions, n], without zeros; 0 for a row of zeros."""
    magnitudes = np.sort(np.abs(values), axis=1)
    zeros = np.count_nonzero(magnitudes == 0, axis=1)
    middle = np.minimum((zeros + values.shape[1]) // 2, values.shape[1] - 1)
    return magnitudes[np.arange(len(values)), middle]


def _in_words(positions: Sequence[int], most: int = 3) -> str:
    """(4, 5, 6, 9) -> "positions 4 to 6 and 9"; only the first of many runs are named."""
    edges = np.flatnonzero(np.diff(positions) > 1)
    runs = [(positions[i + 1], positions[j]) for i, j in zip([-1, *edges], [*edges, len(positions) - 1])]
    words = [f"{first}" if first == last else f"{first} to {last}" for first, last in runs]
    if len(words) > most:
        return f"{len(positions)} positions ({', '.join(words[:most])}, ...)"
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"position{'' if len(positions) == 1 else 's'} {listed}"
