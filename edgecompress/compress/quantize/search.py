"""Looks for what lifts a quantized model above a limit on its quality, cheapest first.

Each kind of change is tried where the outputs are still too far from the float model's, and kept only where that
measurably helps: smoothing; another calibration method for single values; weights rounded with regard to the outputs;
then more bits for the values whose rounding harms the outputs most for what it costs to store them better, as int16 or
as floats, whichever the target computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.batch import Runner
from edgecompress.compress.quantize.bit_widths import with_int16
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.choose_method import steps_of
from edgecompress.compress.quantize.dynamic import can_be_dynamic
from edgecompress.compress.quantize.gptq import FEWEST, round_weights, samples_for, with_rounded
from edgecompress.compress.quantize.more_bits import (
    FLOAT_BITS,
    NEGLIGIBLE,
    Candidates,
    divided,
    fewest,
    groups_of,
    macs,
    weights_of,
)
from edgecompress.compress.quantize.post_training import Quantized, quantize, quantize_again
from edgecompress.compress.quantize.ranges import METHODS
from edgecompress.compress.quantize.smooth import sites, smoothed
from edgecompress.compress.quantize.tuning import (
    Judge,
    Measured,
    Step,
    Tuner,
    judge_of,
    judge_of_files,
    judge_on,
    judging_samples,
)
from edgecompress.compress.quantize.weight_types import any_has_few_bits
from edgecompress.evaluate.held_out import select
from edgecompress.graph.annotations import codebook, comes_quantized, forget_given
from edgecompress.graph.fusion import Layer
from edgecompress.recipe import Quantize

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset

MARGIN = 2.0  # dB above the limit, which is measured on other samples, for changes that cost nothing on the device
MORE_BITS_MARGIN = 0.5  # dB above what other samples have shown to be missing, for changes that cost bytes or time
WORTH = 0.1  # dB that a single value's method has to gain
WORTH_COST = 0.5  # dB that a change has to gain which costs time on the device and does not reach the limit
WORTH_GIVEN = 3.0  # dB that other scales have to gain over those that the model was trained with
ALPHAS = (0.5, 0.75)  # of the difference between channels that matrices take over
HARMFUL = 0.05  # of all noise: a value whose rounding adds less keeps its calibration method
METHODS_OF_VALUES = "calibration methods of single values"
QUICK_MACS = 10_000_000_000  # of a measurement that only ranks
METHODS_SHARE, ROUNDING_SHARE, RANKING_SHARE = 0.25, 0.4, 0.4  # of the time that is left
JUDGING_SHARE = 1 / 3  # of the samples, that weights are not fitted to
MOST_BUILT = 4  # models with more bits that are quantized anew, each with more than the one before


@dataclass(frozen=True)
class Tried:
    """One kind of change. before, after: the lowest ratio of a slice of the outputs, dB, on calibration samples, or on
    held-out ones where the search went on for these.

    names: the values or layers that it applies to. macs, bytes: multiply-accumulates that now take another type, and
    bytes of weights that the file grows by.
    """

    what: str
    before: float
    after: float
    kept: bool
    names: tuple[str, ...] = ()
    macs: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Found:
    """The model that the search ends with, with the settings that make it.

    worst: the lowest ratio of a slice of its outputs, dB, on the samples that it was measured on. seconds: how long it
    took. out_of_time: whether the limit on these ended it.
    """

    quantized: Quantized
    settings: Quantize
    tried: tuple[Tried, ...]
    worst: float
    seconds: float = field(default=0.0, compare=False)
    out_of_time: bool = False


@dataclass(frozen=True)
class _Way:
    """A model some layers of which compute on more bits, and its quality."""

    made: Quantized
    settings: Quantize
    measured: Measured
    layers: tuple[Layer, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of these layers."""
        return sum(map(macs, self.layers))

    @property
    def bytes(self) -> int:
        """That their weights grow by as floats."""
        return 3 * sum(map(weights_of, self.layers))

    @property
    def cost(self) -> int:
        """To compare ways by."""
        return self.macs + self.bytes


class Clock:
    """Says when the time for a search is over: seconds that this thread computes, so that other work on the machine
    does not change what is found."""

    def __init__(self, seconds: float) -> None:
        self._start, self._seconds = time.thread_time(), seconds
        self.stopped = False

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.thread_time() - self._start

    def is_over(self) -> bool:
        """Whether the time is over, which is remembered if someone asked."""
        self.stopped = self.stopped or self.elapsed > self._seconds
        return self.stopped

    def part(self, share: float) -> Clock:
        """A clock for a share of the time that is left."""
        return Clock(share * max(self._seconds - self.elapsed, 0.0))


def improve(before: Quantized, settings: Quantize, min_snr: float, *, integer_only: bool) -> Found:
    """The quantized model, changed until every slice of its outputs has min_snr, as far as that is possible.

    What costs nothing on the device aims at a margin above. The order of the candidates is fixed, so that the result is
    the same each time, unless settings.search_seconds ends the search.
    """
    search = _Search(before, settings, min_snr, integer_only, Clock(settings.search_seconds))
    if search.judge.names:
        search.run(search.free_changes())
    return search.found()


def improve_further(found: Found, held_out: Dataset, deficit: float, *, integer_only: bool) -> Found:
    """The model that a search ended with, changed until it is better by a deficit, in dB, and a margin, in what is left
    of the first search's time. tried: of both.

    held_out: the samples that showed the deficit, on which this search measures what showed it: the outputs of files.
    How much better a model is on those that calibrate says little of it: weights that were fitted to them gain much
    there, and lose it elsewhere.
    """
    rest = Clock(found.settings.search_seconds - found.seconds)
    search = _Search(found.quantized, found.settings, math.inf, integer_only, rest, held_out)
    search.limit = search.measured.least + deficit + MORE_BITS_MARGIN
    tried = {t.what for t in found.tried} - {METHODS_OF_VALUES}
    search.run({what: change for what, change in search.free_changes().items() if what not in tried})
    again = search.found()
    return replace(again, tried=(*found.tried, *again.tried), seconds=found.seconds + again.seconds)


class _Search:
    """The state of a search: the best model so far, and its quality."""

    def __init__(
        self,
        quantized: Quantized,
        settings: Quantize,
        limit: float,
        integer_only: bool,
        clock: Clock,
        held_out: Dataset | None = None,
    ) -> None:
        """held_out: samples to measure on in place of some of those that calibrate."""
        self.quantized, self.settings, self.limit, self.integer_only = quantized, settings, limit, integer_only
        self.clock, self.cut = clock, False
        self.tried: list[Tried] = []
        reference = quantized.reference
        self.held_out = held_out
        self._judge_by(
            judge_of(reference, quantized.calibration) if held_out is None else judge_of_files(held_out, reference)
        )
        known = quantized.measured if held_out is None else None
        if not self.judge.names:
            known = Measured(math.inf, math.inf)
        self.measured = known or self.judge.of(quantized.model)

    def _judge_by(self, judge: Judge) -> None:
        self.judge, self.quick = judge, judge.quick(QUICK_MACS)

    def free_changes(self) -> dict[str, Callable[[str], None]]:
        """What costs nothing on the device, by what reports call it, in the order of the tries."""
        return {
            "calibrated scales in place of the model's": self.other_scales,
            "smoothing between norms and matrices": self.smoothing,
            METHODS_OF_VALUES: self.methods,
            "weights rounded by GPTQ": self.rounding,
        }

    def run(self, free: Mapping[str, Callable[[str], None]]) -> None:
        """Tries these changes up to a margin above the limit, and more bits up to the limit, where it may be missed."""
        for what, change in free.items():
            if self.measured.worst >= self.limit + MARGIN or self._is_over():
                break
            change(what)
        if self.measured.least < self.limit and not self._is_over():
            self.more_bits("int16 activations" if self.integer_only else "float")

    def found(self) -> Found:
        """What it ends with."""
        late = self.cut and self.measured.least < self.limit
        return Found(self.quantized, self.settings, tuple(self.tried), self.measured.worst, self.clock.elapsed, late)

    def other_scales(self, what: str) -> None:
        """Scales from calibration data in place of those that the model came with, where these ruin it."""
        reference = self.quantized.reference
        if not comes_quantized(reference.graph):
            return
        plain = reference.clone()
        forget_given(plain.graph)
        made = quantize(plain, self.quantized.calibration.dataset, self.settings, integer_only=self.integer_only)
        self._keep(what, made, self.settings, WORTH_GIVEN)

    def smoothing(self, what: str) -> None:
        """Channels behind norms made alike, at the expense of the matrices behind them."""
        reference, dataset = self.quantized.reference, self.quantized.calibration.dataset
        names = tuple(str(site.value.name) for site in sites(reference))
        clustered = any(codebook(value) is not None for value in reference.graph.initializers.values())
        if not names or clustered or comes_quantized(reference.graph):
            return
        first = judging_samples(dataset, reference)[0]
        values = Runner(reference, names, len(next(iter(first.values()))))(first)
        rows = {name: a.reshape(-1, a.shape[-1]) for name, a in values.items()}
        ranges = {name: (a.min(axis=0), a.max(axis=0)) for name, a in rows.items()}
        plain = self.settings.model_copy(update={"equalize": False})
        tries = [
            quantize(smoothed(reference, ranges, alpha), dataset, plain, integer_only=self.integer_only)
            for alpha in ALPHAS
        ]
        best = max(tries, key=lambda made: self.judge.of(made.model).mean)
        made = replace(best, equalization=self.quantized.equalization)
        self._keep(what, made, self.settings, WORTH, names)

    def methods(self, what: str) -> None:
        """Another calibration method for the single values whose rounding harms most.

        Ranges that few samples keep to cut off what others have, so that held-out samples choose together with some
        of those that calibrate.
        """
        calibration, model = self.quantized.calibration, self.quantized.model
        if self.settings.calibration != "auto":
            return
        clock, tuner, own = self.clock.part(METHODS_SHARE), Tuner(self.judge, model), steps_of(model)
        groups = self._harmful(tuner, own, clock)
        others = [m for m in METHODS if m != calibration.method] if groups else []
        steps = {m: steps_of(self._annotate(replace(calibration, method=m, methods={}))) for m in others}
        judge = self.quick
        if self.held_out is not None:
            judge = self.judge.with_others(calibration.dataset).quick(QUICK_MACS)
        best, chosen = tuner.measure({}, judge=judge), dict(calibration.methods)
        changes: dict[str, Step] = {}
        for names in groups:
            for method, other in steps.items():
                candidate = {name: other[name] for name in names if name in other}
                if not candidate or all(own[n] == s for n, s in candidate.items()) or clock.is_over():
                    continue
                measured = tuner.measure(changes | candidate, judge=judge)
                if measured.mean > best.mean + WORTH:
                    best, changes = measured, changes | candidate
                    chosen |= dict.fromkeys(names, method)
        self.cut = self.cut or clock.stopped
        if changes:
            made = self._remade(self.settings, replace(calibration, methods=chosen))
            self._keep(what, made, self.settings, WORTH, tuple(changes))

    def rounding(self, what: str) -> None:
        """Weights rounded so that their errors make up for each other, where statistics cost little enough.

        They can fit some samples and harm all others: what they do shows on those alone that they were not fitted to,
        where there are enough, and so does what is done behind them.
        """
        reference, count = self.quantized.reference, samples_for(self.quantized.reference)
        if not count or comes_quantized(reference.graph):
            return
        fitted, others = _divided(self.quantized.calibration.dataset, count)
        clock = self.clock.part(ROUNDING_SHARE)
        rounded = round_weights(reference, self.quantized.model, fitted, clock.is_over)
        self.cut = self.cut or clock.stopped
        if not rounded:
            return
        made = replace(self.quantized, model=with_rounded(self.quantized.model.clone(), rounded), rounded=rounded)
        if others is None or self.held_out is not None:
            self._keep(what, made, self.settings, WORTH, tuple(rounded))
            return
        before = self.judge, self.quick, self.measured
        self._judge_by(judge_on(others, reference))
        self.measured = self.judge.of(self.quantized.model)
        self._keep(what, made, self.settings, WORTH, tuple(rounded))
        if not self.tried[-1].kept:
            self.judge, self.quick, self.measured = before

    def more_bits(self, what: str) -> None:
        """Values stored better, as floats, or as int16 where the target has no floats: those first whose rounding harms
        most for what that costs, and as few as reach the limit for sure: of many choices, some are good enough on these
        samples by chance.

        Weights that were rounded for inputs of int8 layers may not suit better ones: of both ways, the cheaper. Where
        weights have few bits because the recipe says so, better values can't make up for them.
        """
        if any_has_few_bits(self.quantized.model):
            return
        starts = [self.quantized]
        if self.quantized.rounded:
            plain = replace(self.quantized, rounded={})
            starts.append(quantize_again(plain, self.settings, integer_only=self.integer_only))
        ways = [way for start in starts if (way := self._widened(start)) is not None]
        if not ways:
            return
        reached = [way for way in ways if way.measured.least >= self.limit]
        best = min(reached, key=lambda w: w.cost) if reached else max(ways, key=lambda w: w.measured.least)
        names = tuple(str(layer.output.name) for layer in best.layers)
        cost = {"macs": best.macs, "bytes": 0 if self.integer_only else best.bytes}
        self._keep(what, best.made, best.settings, 0.0 if reached else WORTH_COST, names, **cost)

    def _widened(self, start: Quantized) -> _Way | None:
        """With the fewest groups of values stored better that reach the limit, or those that come nearest; None if
        there is none."""
        candidates = Candidates(start.model, start.reference, float_allowed=not self.integer_only)
        tuner = self._tuner(start, candidates)
        order = self._by_gain(tuner, candidates)
        expected: dict[int, float] = {}

        def reaches(count: int) -> bool:
            expected[count] = tuner.measure(*candidates.changes(order[:count])).least
            return expected[count] >= self.limit

        count = fewest(len(order), reaches)
        if count is None:
            count = max(expected, key=lambda n: (expected[n], -n), default=0)
        way = None
        for _ in range(MOST_BUILT if count else 0):
            chosen = candidates.layers_of(order[:count])
            settings = self._with_layers(chosen)
            made = quantize_again(start, settings, integer_only=self.integer_only)
            found = _Way(made, settings, self.judge.of(made.model), tuple(chosen))
            way = found if way is None or found.measured.least > way.measured.least else way
            if way.measured.least >= self.limit or count == len(order) or self._is_over():
                break
            count = min(count + max(count // 4, 1), len(order))
        return way

    def _tuner(self, start: Quantized, candidates: Candidates) -> Tuner:
        """Of the model as it is, or, where that is better beside values that are all stored better, with the biases of
        the float model: those that make up for large errors of int8 values add such errors where these are gone."""
        tuner, best = Tuner(self.judge, start.model), candidates.changes(range(len(candidates.groups)))
        reached = tuner.measure(*best).least
        if reached >= self.limit or not self.settings.bias_correction:
            return tuner
        settings = self.settings.model_copy(update={"bias_correction": False})
        plain = Tuner(self.judge, quantize_again(start, settings, integer_only=self.integer_only).model)
        return plain if plain.measure(*best).least > reached else tuner

    def _by_gain(self, tuner: Tuner, candidates: Candidates) -> list[int]:
        """The groups of values, that first which gains most for its cost if it is stored better."""
        base, clock = _noise(tuner.measure({}, judge=self.quick)), self.clock.part(RANKING_SHARE)

        def gain(part: range) -> float:
            return base - _noise(tuner.measure(*candidates.changes(part), judge=self.quick))

        whole = divided(len(candidates.groups), gain, NEGLIGIBLE * base, clock.is_over)
        self.cut = self.cut or clock.stopped
        return whole.order(candidates.cost)

    def _harmful(self, tuner: Tuner, own: dict[str, Step], clock: Clock) -> list[tuple[str, ...]]:
        """The groups of values whose rounding and saturation add most to the noise, worst first."""
        groups = groups_of(self.quantized.model)
        base = _noise(tuner.measure({}, judge=self.quick))

        def gain(part: range) -> float:
            exact = {name: own[name].finer(FLOAT_BITS) for index in part for name in groups[index]}
            return base - _noise(tuner.measure(exact, judge=self.quick))

        parts = divided(len(groups), gain, HARMFUL * base, clock.part(0.5).is_over).leaves()
        harmful = [part for part in parts if len(part.indices) == 1 and part.gain >= HARMFUL * base]
        return [groups[part.indices[0]] for part in sorted(harmful, key=lambda part: -part.gain)]

    def _with_layers(self, found: list[Layer]) -> Quantize:
        """The settings with these layers as int16 or as float."""
        names = [str(layer.output.name) for layer in found]
        if self.integer_only:
            return with_int16(self.settings, names)
        dynamic = [str(layer.output.name) for layer in found if can_be_dynamic(layer)]
        rest = [name for name in names if name not in dynamic]
        return self.settings.model_copy(
            update={
                "float_layers": [*self.settings.float_layers, *rest],
                "dynamic_layers": [*self.settings.dynamic_layers, *dynamic],
            }
        )

    def _is_over(self) -> bool:
        self.cut = self.cut or self.clock.is_over()
        return self.clock.is_over()

    def _annotate(self, calibration: Calibration) -> ir.Model:
        reference = self.quantized.reference
        return quantize_static(reference, calibration, self.settings, integer_only=self.integer_only)

    def _remade(self, settings: Quantize, calibration: Calibration) -> Quantized:
        before = replace(self.quantized, calibration=calibration)
        return quantize_again(before, settings, integer_only=self.integer_only)

    def _keep(
        self, what: str, made: Quantized, settings: Quantize, worth: float, names: tuple[str, ...] = (), **cost: int
    ) -> None:
        """Goes on with a change if it gains enough, and records it in any case."""
        measured = self.judge.of(made.model)
        kept = measured.mean > self.measured.mean + worth and measured.worst >= self.measured.worst
        self.tried.append(Tried(what, self.measured.worst, measured.worst, kept, names, **cost))
        if kept:
            self.quantized, self.settings, self.measured = made, settings, measured


def _divided(dataset: Dataset, count: int) -> tuple[Dataset, Dataset | None]:
    """(samples to fit to, count at most; others, or None where there are too few for both)"""
    fitted = min(count, len(dataset) - int(JUDGING_SHARE * len(dataset)))
    if fitted < FEWEST:
        return dataset.head(count), None
    return select(dataset, range(fitted)), select(dataset, range(fitted, len(dataset)))


def _noise(measured: Measured) -> float:
    return 10.0 ** (-measured.mean / 10)
