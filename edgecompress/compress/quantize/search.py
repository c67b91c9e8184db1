"""Looks for what lifts a quantized model above a limit on its quality, cheapest first.

Each kind of change is tried where the outputs are still too far from the float model's, and kept only where that
measurably helps: smoothing; another calibration method for single values; then more bits for the values whose rounding
harms the outputs most for what it costs to store them better, as int16 or as floats, whichever the target computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.assign import quantize_static
from edgecompress.compress.quantize.batch import Runner
from edgecompress.compress.quantize.bias_correction import correct_bias
from edgecompress.compress.quantize.bit_widths import can_be_int16, with_int16
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.choose_method import steps_of
from edgecompress.compress.quantize.post_training import Quantized, quantize
from edgecompress.compress.quantize.ranges import METHODS
from edgecompress.compress.quantize.smooth import sites, smoothed
from edgecompress.compress.quantize.tuning import Judge, Measured, Step, Tuner, judging_samples
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
    """The model that the search ends with, with the settings that make it. out_of_time: whether the limit ended it."""

    quantized: Quantized
    settings: Quantize
    tried: tuple[Tried, ...]
    out_of_time: bool = False


class Clock:
    """Says when the time for a search is over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.stopped = False

    def is_over(self) -> bool:
        """Whether the time is over, which is remembered if someone asked."""
        self.stopped = self.stopped or time.monotonic() > self._end
        return self.stopped


def improve(before: Quantized, settings: Quantize, min_snr: float, *, integer_only: bool) -> Found:
    """The quantized model, changed until every slice of its outputs has min_snr and a margin, as far as that is
    possible.

    The order of the candidates is fixed, so that the result is the same each time, unless settings.search_seconds ends
    the search.
    """
    search = _Search(before, settings, min_snr + MARGIN, integer_only)
    if not search.judge.names:
        return Found(before, settings, ())
    for change in (search.other_scales, search.smoothing, search.methods, search.more_bits):
        if search.measured.worst >= search.target or search.clock.is_over():
            break
        change()
    return Found(search.quantized, search.settings, tuple(search.tried), search.clock.stopped)


class _Search:
    """The state of a search: the best model so far, and its quality."""

    def __init__(self, quantized: Quantized, settings: Quantize, target: float, integer_only: bool) -> None:
        self.quantized, self.settings, self.target, self.integer_only = quantized, settings, target, integer_only
        self.clock = Clock(settings.search_seconds)
        self.tried: list[Tried] = []
        batches = judging_samples(quantized.calibration.dataset, quantized.reference)
        self.judge = Judge(quantized.reference, batches)
        self.measured = self.judge.of(quantized.model) if self.judge.names else Measured(0, 0)

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

    def more_bits(self) -> None:
        """Values stored better, as floats, or as int16 where the target has no floats: those first whose rounding harms
        most for what that costs, and as few as reach the target."""
        kind = "int16 activations" if self.integer_only else "float"
        wide = _Wider(self.quantized.model, float_allowed=not self.integer_only)
        order = self._by_gain(wide)
        tries: dict[int, tuple[Quantized, Quantize, Measured]] = {}

        def reaches(count: int) -> bool:
            settings = self._with_layers(wide.layers_of(order[:count]))
            made = self._remade(settings, self.quantized.calibration)
            tries[count] = (made, settings, self.judge.of(made.model))
            return tries[count][2].worst >= self.target

        _fewest(len(order), reaches, self.clock)
        if not tries:
            return
        enough = [count for count, (*_, measured) in tries.items() if measured.worst >= self.target]
        count = min(enough) if enough else max(tries, key=lambda n: (tries[n][2].worst, -n))
        made, settings, _ = tries[count]
        found = wide.layers_of(order[:count])
        names = tuple(str(layer.output.name) for layer in found)
        cost = {"macs": sum(map(_macs, found)), "bytes": 0 if self.integer_only else 3 * sum(map(_weights, found))}
        self._keep(kind, made, settings, WORTH_COST, names, **cost)

    def _by_gain(self, wide: _Wider) -> list[int]:
        """The groups of values, that first which gains most for its cost if it alone is stored better."""
        bits = INT16_BITS if self.integer_only else FLOAT_BITS
        tuner, own = Tuner(self.judge, self.quantized.model), steps_of(self.quantized.model)
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
        reference, correction = self.quantized.reference, None
        model = quantize_static(reference, calibration, settings, integer_only=self.integer_only)
        if settings.bias_correction and not comes_quantized(model.graph):
            model, correction = correct_bias(reference, model, calibration)
        return replace(self.quantized, model=model, calibration=calibration, bias_correction=correction)

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
