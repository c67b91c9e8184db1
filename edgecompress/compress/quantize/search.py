"""Looks for what lifts a quantized model above a limit on its quality, cheapest first.

Each kind of change is tried where the outputs are still too far from the float model's, and kept only where that
measurably helps: smoothing; another calibration method for single values; weights rounded with regard to the outputs;
then more bits for the values whose rounding harms the outputs most for what it costs to store them better, as int16 or
as floats, whichever the target computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.batch import Runner
from edgecompress.compress.quantize.bit_widths import can_be_int16, with_int16
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.choose_method import steps_of
from edgecompress.compress.quantize.gptq import round_weights, samples_for, with_rounded
from edgecompress.compress.quantize.post_training import Quantized, quantize, quantize_again
from edgecompress.compress.quantize.ranges import METHODS
from edgecompress.compress.quantize.smooth import sites, smoothed
from edgecompress.compress.quantize.tuning import Judge, Measured, Step, Tuner, judging_samples
from edgecompress.compress.quantize.weight_types import any_has_few_bits
from edgecompress.graph.annotations import codebook, comes_quantized, forget_given, is_integer, quantization
from edgecompress.graph.channel_axes import elements
from edgecompress.graph.fusion import Layer, constant, layers
from edgecompress.operators import record_of
from edgecompress.recipe import Quantize

MARGIN = 2.0  # dB above the limit, which is measured on other samples
WORTH = 0.1  # dB that a single value's method has to gain
WORTH_COST = 0.5  # dB that a change has to gain which costs time on the device
WORTH_GIVEN = 3.0  # dB that other scales have to gain over those that the model was trained with
ALPHAS = (0.5, 0.75)  # of the difference between channels that matrices take over
INT16_BITS, FLOAT_BITS = 8, 14  # more than int8's; float32 holds no more whole numbers
INT16_COST, FLOAT_COST = 1, 3  # of a multiply-accumulate, beside int8's 1


@dataclass(frozen=True)
class Tried:
    """One kind of change. before, after: the lowest ratio of a slice of the outputs, dB, on calibration samples.

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

    worst: the lowest ratio of a slice of its outputs, dB, on calibration samples. seconds: how long it took.
    out_of_time: whether the limit on these ended it.
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
        return sum(map(_macs, self.layers))

    @property
    def bytes(self) -> int:
        """That their weights grow by as floats."""
        return 3 * sum(map(_weights, self.layers))

    @property
    def cost(self) -> int:
        """To compare ways by."""
        return self.macs + self.bytes


class Clock:
    """Says when the time for a search is over."""

    def __init__(self, seconds: float) -> None:
        self._start, self._seconds = time.monotonic(), seconds
        self.stopped = False

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._start

    def is_over(self) -> bool:
        """Whether the time is over, which is remembered if someone asked."""
        self.stopped = self.stopped or self.elapsed > self._seconds
        return self.stopped


def improve(before: Quantized, settings: Quantize, min_snr: float, *, integer_only: bool) -> Found:
    """The quantized model, changed until every slice of its outputs has min_snr and a margin, as far as that is
    possible.

    The order of the candidates is fixed, so that the result is the same each time, unless settings.search_seconds ends
    the search.
    """
    return _searched(before, settings, min_snr + MARGIN, integer_only, settings.search_seconds)


def improve_further(found: Found, deficit: float, *, integer_only: bool) -> Found:
    """The model that a search ended with, changed until it is better by a deficit, in dB, and the margin, in what is
    left of the first search's time. tried: of both."""
    rest = found.settings.search_seconds - found.seconds
    target = found.worst + deficit + MARGIN
    again = _searched(found.quantized, found.settings, target, integer_only, rest)
    return replace(again, tried=(*found.tried, *again.tried), seconds=found.seconds + again.seconds)


def _searched(before: Quantized, settings: Quantize, target: float, integer_only: bool, seconds: float) -> Found:
    search = _Search(before, settings, target, integer_only, Clock(seconds))
    if search.judge.names:
        for change in (search.other_scales, search.smoothing, search.methods, search.rounding, search.more_bits):
            if search.measured.worst >= search.target or search.clock.is_over():
                break
            change()
    worst, clock = search.measured.worst, search.clock
    return Found(search.quantized, search.settings, tuple(search.tried), worst, clock.elapsed, clock.stopped)


class _Search:
    """The state of a search: the best model so far, and its quality."""

    def __init__(
        self, quantized: Quantized, settings: Quantize, target: float, integer_only: bool, clock: Clock
    ) -> None:
        self.quantized, self.settings, self.target, self.integer_only = quantized, settings, target, integer_only
        self.clock = clock
        self.tried: list[Tried] = []
        batches = judging_samples(quantized.calibration.dataset, quantized.reference)
        self.judge = Judge(quantized.reference, batches)
        self.measured = self.judge.of(quantized.model) if self.judge.names else Measured(math.inf, math.inf)

    def other_scales(self) -> None:
        """Scales from calibration data in place of those that the model came with, where these ruin it."""
        reference = self.quantized.reference
        if not comes_quantized(reference.graph):
            return
        plain = reference.clone()
        forget_given(plain.graph)
        made = quantize(plain, self.quantized.calibration.dataset, self.settings, integer_only=self.integer_only)
        self._keep("calibrated scales in place of the model's", made, self.settings, WORTH_GIVEN)

    def smoothing(self) -> None:
        """Channels behind norms made alike, at the expense of the matrices behind them."""
        reference, dataset = self.quantized.reference, self.quantized.calibration.dataset
        names = tuple(str(site.value.name) for site in sites(reference))
        clustered = any(codebook(value) is not None for value in reference.graph.initializers.values())
        if not names or clustered or comes_quantized(reference.graph):
            return
        first = self.judge.batches[0]
        values = Runner(reference, names, self.judge.size)(first)
        rows = {name: a.reshape(-1, a.shape[-1]) for name, a in values.items()}
        ranges = {name: (a.min(axis=0), a.max(axis=0)) for name, a in rows.items()}
        plain = self.settings.model_copy(update={"equalize": False})
        tries = [
            quantize(smoothed(reference, ranges, alpha), dataset, plain, integer_only=self.integer_only)
            for alpha in ALPHAS
        ]
        best = max(tries, key=lambda made: self.judge.of(made.model).mean)
        made = replace(best, equalization=self.quantized.equalization)
        self._keep("smoothing between norms and matrices", made, self.settings, WORTH, names)

    def methods(self) -> None:
        """Another calibration method for single values."""
        calibration = self.quantized.calibration
        if self.settings.calibration != "auto":
            return
        steps = {m: steps_of(self._annotate(replace(calibration, method=m, methods={}))) for m in METHODS}
        tuner = Tuner(self.judge, self.quantized.model)
        own, best, chosen = steps_of(self.quantized.model), tuner.measure({}), dict(calibration.methods)
        changes: dict[str, Step] = {}
        for names in _groups(self.quantized.model):
            for method, other in steps.items():
                candidate = {name: other[name] for name in names if name in other}
                if not candidate or all(own[n] == s for n, s in candidate.items()) or self.clock.is_over():
                    continue
                measured = tuner.measure(changes | candidate)
                if measured.mean > best.mean + WORTH:
                    best, changes = measured, changes | candidate
                    chosen |= dict.fromkeys(names, method)
        if changes:
            made = self._remade(self.settings, replace(calibration, methods=chosen))
            self._keep("calibration methods of single values", made, self.settings, WORTH, tuple(changes))

    def rounding(self) -> None:
        """Weights rounded so that their errors make up for each other, where statistics cost little enough."""
        reference, count = self.quantized.reference, samples_for(self.quantized.reference)
        if not count or comes_quantized(reference.graph):
            return
        dataset = self.quantized.calibration.dataset.head(count)
        rounded = round_weights(reference, self.quantized.model, dataset, self.clock.is_over)
        if rounded:
            model = with_rounded(self.quantized.model.clone(), rounded)
            made = replace(self.quantized, model=model, rounded=rounded)
            self._keep("weights rounded by GPTQ", made, self.settings, WORTH, tuple(rounded))

    def more_bits(self) -> None:
        """Values stored better, as floats, or as int16 where the target has no floats: those first whose rounding harms
        most for what that costs, and as few as reach the target.

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
        reached = [way for way in ways if way.measured.worst >= self.target]
        best = min(reached, key=lambda w: w.cost) if reached else max(ways, key=lambda w: w.measured.worst)
        kind = "int16 activations" if self.integer_only else "float"
        names = tuple(str(layer.output.name) for layer in best.layers)
        cost = {"macs": best.macs, "bytes": 0 if self.integer_only else best.bytes}
        self._keep(kind, best.made, best.settings, WORTH_COST, names, **cost)

    def _widened(self, start: Quantized) -> _Way | None:
        """With the fewest groups of values stored better that reach the target, or those that come nearest; None if the
        time is over before one was tried."""
        wide = _Wider(start.model, float_allowed=not self.integer_only)
        order = self._by_gain(start.model, wide)
        tries: dict[int, _Way] = {}

        def reaches(count: int) -> bool:
            chosen = wide.layers_of(order[:count])
            settings = self._with_layers(chosen)
            made = quantize_again(start, settings, integer_only=self.integer_only)
            tries[count] = _Way(made, settings, self.judge.of(made.model), tuple(chosen))
            return tries[count].measured.worst >= self.target

        _fewest(len(order), reaches, self.clock)
        enough = [count for count, way in tries.items() if way.measured.worst >= self.target]
        if enough:
            return tries[min(enough)]
        return tries[max(tries, key=lambda n: (tries[n].measured.worst, -n))] if tries else None

    def _by_gain(self, model: ir.Model, wide: _Wider) -> list[int]:
        """The groups of values, that first which gains most for its cost if it alone is stored better."""
        bits = INT16_BITS if self.integer_only else FLOAT_BITS
        tuner, own = Tuner(self.judge, model), steps_of(model)
        base, gains = _noise(tuner.measure({})), []
        for index, names in enumerate(wide.groups):
            if self.clock.is_over():
                break
            gain = base - _noise(tuner.measure({n: own[n].finer(bits) for n in names}))
            gains.append((-gain / wide.cost(index), index))
        return [index for _, index in sorted(gains)]

    def _with_layers(self, found: list[Layer]) -> Quantize:
        """The settings with these layers as int16 or as float."""
        names = [str(layer.output.name) for layer in found]
        if self.integer_only:
            return with_int16(self.settings, names)
        return self.settings.model_copy(update={"float_layers": [*self.settings.float_layers, *names]})

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


def _fewest(most: int, reaches: Callable[[int], bool], clock: Clock) -> None:
    """Asks whether a count reaches a target, for 1, 2, 4, ... up to the first that does, then between: about
    2 log2(most) questions to find the fewest."""
    low, high = 0, 1
    while high < most and not clock.is_over() and not reaches(high):
        low, high = high, 2 * high
    high = min(high, most)
    if not most or clock.is_over() or (high == most and not reaches(most)):
        return
    while high - low > 1 and not clock.is_over():
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)


class _Wider:
    """Groups of values that could be stored better, and the layers that would have to compute so."""

    def __init__(self, annotated: ir.Model, *, float_allowed: bool) -> None:
        by_value: dict[str, list[Layer]] = {}
        able: Callable[[Layer], bool] = (lambda layer: True) if float_allowed else can_be_int16
        fixed = {str(v.name) for v in annotated.graph.inputs}
        if not float_allowed:  # its callers know int8 outputs
            fixed |= {str(v.name) for v in annotated.graph.outputs}
        for layer in layers(annotated.graph):
            if is_integer(layer.node):
                values = [v for _, v in operators.data_inputs(layer) if constant(v) is None]
                for value in [*values, *operators.outputs(layer)]:
                    by_value.setdefault(str(value.name), []).append(layer)
        known = {n: found for n, found in by_value.items() if n not in fixed and all(map(able, found))}
        self.groups = [g for g in _groups(annotated) if all(n in known for n in g)]
        self._layers = by_value
        self._float = float_allowed

    def layers_of(self, indices: list[int]) -> list[Layer]:
        """The layers that compute these groups' values or read them, each once; what only moves numbers follows."""
        found = {layer.node: layer for i in indices for n in self.groups[i] for layer in self._layers[n]}
        return [x for x in found.values() if self._float or not operators.RULES[x.node.op_type].passive]

    def cost(self, index: int) -> int:
        """What storing a group better costs, in multiply-accumulates on int8, and bytes."""
        found = self.layers_of([index])
        moved = sum(elements(layer.output) for layer in found)
        each = FLOAT_COST if self._float else INT16_COST
        return 1 + moved + sum(each * _macs(layer) + (each * _weights(layer) if self._float else 0) for layer in found)


def _groups(annotated: ir.Model) -> list[tuple[str, ...]]:
    """The names of the values that share a scale, in the order of the graph."""
    groups: dict[int, list[str]] = {}
    for value in [*annotated.graph.inputs, *(v for node in annotated.graph for v in node.outputs)]:
        if (q := quantization(value)) is not None:
            groups.setdefault(id(q), []).append(str(value.name))
    return [tuple(names) for names in groups.values()]


def _noise(measured: Measured) -> float:
    return 10.0 ** (-measured.mean / 10)


def _macs(layer: Layer) -> int:
    return record_of(layer.node).macs(layer.node)


def _weights(layer: Layer) -> int:
    array = constant(operators.weight(layer))
    return 0 if array is None else int(array.size)
