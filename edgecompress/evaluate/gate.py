"""Whether an artifact is good enough to leave: what was measured of it, against the limits of [evaluate].

With labels the metric decides, for the outputs that it reads: a limit that was asked for is strict, and the one by
default lets pass what chance explains on so few samples. Everything else is decided by the quality of each slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgecompress.evaluate.metrics import METRICS, Paired, reads_several
from edgecompress.evaluate.quality import Quality
from edgecompress.evaluate.verify import Check, Reference
from edgecompress.recipe import Evaluate

ROUNDING = 1e-9  # points: a limit that is met exactly is met
DEFAULT_DROP = 1.0  # points that may be lost with labels, unless max_drop says so
SAME_CLASSES = 97.0  # percent of equal classes that suffice in place of a ratio
KAPPA = 0.9  # agreement beyond what two that always say the same class reach (Cohen 1960)
WORSE_DB, WORSE_PERCENT = 1.0, 1.0  # by which interpreters may differ from one another on the same samples
CHANCE = 0.05  # a loss that is at least as likely without any difference is explained by chance
ENOUGH_SAMPLES = 30  # with fewer labels, a loss that chance explains says nothing; and so do fewer equal classes


@dataclass(frozen=True)
class Shortfall:
    """One limit that an artifact misses.

    where: the format and the interpreter. text: what was measured, and what was asked for. metric: whether it is a
    limit on the metric. value: what was measured, to find the worst. missing_db: by how much a ratio misses it.
    """

    where: str
    text: str
    metric: bool
    value: float
    missing_db: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """On one artifact in one interpreter, or on several. notes: what chance explains. doubts: limits that it keeps on
    these samples, and may miss on many; each with how low its ratio may be there.
    """

    shortfalls: tuple[Shortfall, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[Shortfall, ...] = ()

    @property
    def loses_accuracy(self) -> bool:
        """Whether it misses a limit on the metric."""
        return any(s.metric for s in self.shortfalls)

    @property
    def deficit(self) -> float:
        """dB that the worst slice misses, or may miss on other samples; 0 where none does."""
        return max((s.missing_db for s in (*self.shortfalls, *self.doubts)), default=0.0)


def judge(check: Check, reference: Reference, settings: Evaluate, format: str = "onnx") -> Verdict:
    """The verdict on an artifact in one interpreter; one that failed there is passed over."""
    if check.error is not None:
        return Verdict()
    name = f".{format} in {check.interpreter} {check.version}" + (f" for {check.shape}" if check.shape else "")
    below = [q for q in check.qualities if not _suffices(q, check, reference, settings)]
    scored = _scored_outputs(reference)
    if check.samples < len(reference.dataset):  # LiteRT's reference kernels run few samples, which have no say
        worse = [q for q in below if q.slice.output not in scored and not _is_as_good(q, check.beside)]
        return Verdict(tuple(_of_quality(name, q, settings) for q in worse))
    shortfalls = [_of_quality(name, q, settings) for q in below if q.slice.output not in scored or _is_lost(q)]
    unscored = [q for q in check.qualities if q.slice.output not in scored]
    doubts = tuple(
        _of_doubt(name, q, check.samples, settings) for q in unscored if _may_miss(q, check, reference, settings)
    )
    limit = drop_limit(reference, settings, check.output)
    if not scored or limit is None or check.drop is None or check.drop <= limit + ROUNDING:
        return Verdict(tuple(shortfalls), doubts=doubts)
    text = (
        f"{check.metric} falls by {check.drop:.2f} points, from {check.reference_value:.2f} to {check.value:.2f}, "
        f"and may fall by {limit:g}"
    )
    explained = settings.max_drop is None and check.paired is not None and chance(check.paired) > CHANCE
    if explained and (check.samples >= ENOUGH_SAMPLES or not any(q.slice.output in scored for q in below)):
        assert check.paired is not None
        return Verdict(tuple(shortfalls), (f"{name}: {text}, which chance explains: {check.paired}",), doubts)
    return Verdict((Shortfall(name, text, True, -check.drop), *shortfalls), doubts=doubts)


def drop_limit(reference: Reference, settings: Evaluate, output: str | None = None) -> float | None:
    """How much of the metric may be lost; None without labels. output: whose metric; by default the first one's."""
    if not reference.measures:
        return None
    if settings.max_drop is not None:
        return settings.max_drop
    measure = next((m for m in reference.measures if m.output == output), reference.measures[0])
    value = 0.0 if measure.metric.name in METRICS else measure(reference.outputs)
    return DEFAULT_DROP * measure.point(value)


def chance(paired: Paired) -> float:
    """How likely at least as many losses are among the samples that differ, if a loss is as likely as a gain.

    The exact one-sided sign test; on right and wrong predictions it is McNemar's (McNemar 1947).
    """
    n = paired.lost + paired.gained
    return sum(math.comb(n, k) for k in range(paired.lost, n + 1)) / 2**n


def _scored_outputs(reference: Reference) -> set[str]:
    """The outputs that metrics decide on: each its own, and functions of the user's and those of boxes the rest too."""
    names = reference.names
    return {
        name
        for measure in reference.measures
        for name in (names[measure.place :] if reads_several(measure.metric.name) else [measure.output])
    }


def _suffices(quality: Quality, check: Check, reference: Reference, settings: Evaluate) -> bool:
    """Whether the slice reaches its limit or, unless a higher one than the default is asked for, has equal classes; but
    scores that no Softmax is behind may be anything."""
    key, value = ("min_equal", quality.equal_percent) if quality.snr_db is None else ("min_snr", quality.snr_db)
    limit: float = getattr(settings, key)
    if limit == 0 or (value is not None and value >= limit):
        return True
    same = check.classes.get(quality.slice.output)
    if (
        same is None
        or quality.slice.output not in reference.sure
        or _is_lost(quality)
        or limit > Evaluate.model_fields[key].default
    ):
        return False
    return same.percent >= SAME_CLASSES and same.kappa >= KAPPA


def _may_miss(quality: Quality, check: Check, reference: Reference, settings: Evaluate) -> bool:
    """Whether a slice reaches its limit, but may not on other samples. That a few classes are equal says nothing."""
    if quality.least_db is None or not _suffices(quality, check, reference, settings):
        return False
    known = check if check.samples >= ENOUGH_SAMPLES else replace(check, classes={})
    return not _suffices(replace(quality, snr_db=quality.least_db), known, reference, settings)


def _is_as_good(quality: Quality, others: Iterable[Quality]) -> bool:
    """Whether the same slice is no better in another interpreter on the same few samples: then these are hard ones."""
    other = next((q for q in others if q.slice == quality.slice), None)
    if other is None or _is_lost(quality):
        return False
    if quality.snr_db is None or other.snr_db is None:
        return (quality.equal_percent or 0.0) >= (other.equal_percent or 0.0) - WORSE_PERCENT
    return quality.snr_db >= other.snr_db - WORSE_DB


def _is_lost(quality: Quality) -> bool:
    return quality.snr_db == -math.inf


def _of_quality(where: str, quality: Quality, settings: Evaluate) -> Shortfall:
    snr, equal = quality.snr_db, quality.equal_percent
    if snr is None:
        assert equal is not None
        text = f"{equal:.2f} % of the values are equal, and at least {settings.min_equal:g} % are asked for"
        return Shortfall(where, f"{quality.slice}: {text}", False, equal)
    measured = "values are lost or not finite" if _is_lost(quality) else f"{snr:.1f} dB"
    text = f"{measured}, and at least {settings.min_snr:g} dB are asked for"
    return Shortfall(where, f"{quality.slice}: {text}", False, snr, settings.min_snr - snr)


def _of_doubt(where: str, quality: Quality, samples: int, settings: Evaluate) -> Shortfall:
    least = quality.least_db
    assert least is not None and quality.snr_db is not None
    text = (
        f"{quality.slice}: {quality.snr_db:.1f} dB on {samples} samples, whose errors differ so much that it may be "
        f"{least:.1f} dB on many, and at least {settings.min_snr:g} dB are asked for: more samples tell"
    )
    return Shortfall(where, text, False, least, settings.min_snr - least)


def joined(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict of several: limits on the metric first, then the worst."""
    every = list(verdicts)
    shortfalls, doubts = ([s for v in every for s in v.shortfalls], [s for v in every for s in v.doubts])
    return Verdict(
        _worst_first(shortfalls), tuple(dict.fromkeys(n for v in every for n in v.notes)), _worst_first(doubts)
    )


def _worst_first(shortfalls: Iterable[Shortfall]) -> tuple[Shortfall, ...]:
    return tuple(sorted(shortfalls, key=lambda s: (not s.metric, s.value)))
