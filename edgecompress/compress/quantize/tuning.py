"""Measures what other scales and exact weights would do to the outputs, one run of the model for each change.

The simulated model takes its steps and weights as inputs, so that it is loaded once: a search over ranges, widths and
float layers costs as many inferences as it tries candidates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.batch import ALL_CORES, Arrays, Runner, side_by_side
from edgecompress.compress.quantize.calibrate import Calibration
from edgecompress.compress.quantize.noise import decibels, judging_places, measured_outputs
from edgecompress.compress.quantize.simulate import Simulation
from edgecompress.evaluate.batching import in_batches
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.quality import Meter, Slices, slices
from edgecompress.graph.annotations import INTEGER_RANGE, Quantization, is_integer, quantization
from edgecompress.graph.fusion import constant, layers
from edgecompress.support.present import present

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset

OTHERS = 3  # times a few samples, which are judged beside them
SMALLEST = float(np.finfo(np.float32).tiny)  # of a step: floats below it lose digits


@dataclass(frozen=True)
class Step:
    """How a value is rounded: to whole multiples of `scale` from `low` to `high` multiples."""

    scale: float
    low: float
    high: float

    @classmethod
    def of(cls, q: Quantization) -> Step:
        """That of an int8 or int16 value."""
        low, high = (float(end) - float(q.zero_point[0]) for end in INTEGER_RANGE[q.dtype])
        return cls(float(q.scale[0]), low, high)

    def finer(self, bits: int) -> Step:
        """With more bits, in a range that holds every value."""
        return Step(max(self.scale / 2.0**bits, SMALLEST), -math.inf, math.inf)


@dataclass(frozen=True)
class Measured:
    """The outputs against the float model's. worst: the lowest ratio of a slice, dB. mean: of the mean of the
    slices' noise-to-signal ratios, dB, in which the worst slices count most. least: how low the worst ratio may be on
    many samples, dB."""

    worst: float
    mean: float
    least: float = math.inf


def judging_samples(dataset: Dataset, model: ir.Model) -> list[Arrays]:
    """Batches of one size to measure candidates on: few samples of a large model. Where there are more, the first batch
    is left to what is fitted."""
    places = judging_places(dataset, model)
    return list(islice(dataset.batches(places.step), places.start // places.step, places.stop // places.step))


def judge_of(reference: ir.Model, calibration: Calibration) -> Judge:
    """The judge on a part of the calibration data."""
    dataset, places = calibration.dataset, judging_places(calibration.dataset, reference)
    known = calibration.known(reference, measured_outputs(reference), range(places.start, places.stop))
    return Judge(reference, judging_samples(dataset, reference), known)


def judge_on(samples: Dataset, reference: ir.Model) -> Judge:
    """The judge on samples that nothing is fitted to."""
    places = judging_places(samples, reference)
    return Judge(reference, list(islice(samples.batches(places.step), places.stop // places.step)))


def judge_of_files(samples: Dataset, reference: ir.Model) -> Judge:
    """The judge on such samples of what files give: of the model's own outputs, behind a Softmax or a Sigmoid too."""
    names = dict.fromkeys(str(v.name) for v in reference.graph.outputs if v.dtype == ir.DataType.FLOAT)
    return Judge(reference, judge_on(samples, reference).batches, names=list(names))


class Judge:
    """The float model's outputs on some samples, and their slices."""

    def __init__(
        self,
        reference: ir.Model,
        batches: Sequence[Arrays],
        exact: Arrays | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """batches: {name: [n, *sample]} each, with the same n. exact: the outputs, where they are known. names: of the
        values that are measured, by default those that stand for the outputs."""
        self.reference, self.batches = reference, batches
        self.names = measured_outputs(reference) if names is None else list(names)
        self.size = len(next(iter(batches[0].values())))
        run = Runner(reference, self.names, self.size)
        self.whole = run.takes_all(batches[0])
        self.exact = _joined([run(batch) for batch in batches]) if exact is None else exact
        self._slices: dict[str, Slices] = {name: slices(name, x) for name, x in self.exact.items()}

    def quick(self, macs: int) -> Judge:
        """The same on as many batches as take so many multiply-accumulates, at least one."""
        return self.part(max(macs // (self.size * max(statistics(self.reference).macs, 1)), 1))

    def part(self, count: int) -> Judge:
        """The same on the first batches, as many as count."""
        all = len(self.batches)
        if count >= all:
            return self
        part = copy.copy(self)
        part.batches = self.batches[:count]
        part.exact = {name: x[: len(x) * count // all] for name, x in self.exact.items()}
        return part

    def with_others(self, dataset: Dataset) -> Judge:
        """The same on OTHERS times as many more samples, where the data has them."""
        count = min(OTHERS * len(self.batches), len(dataset) // self.size)
        return Judge(self.reference, [*self.batches, *islice(dataset.batches(self.size), count)], names=self.names)

    def measure(self, found: Arrays) -> Measured:
        """How well outputs follow the float model's; found: {name: [n, ...]}."""
        ratios, least = [], []
        for name in self.names:
            meter = Meter(self._slices[name])
            meter.update(self.exact[name], found[name])
            floats = [q for q in meter.qualities() if q.snr_db is not None]
            ratios += [present(q.snr_db) for q in floats]
            least += [present(q.snr_db) if q.least_db is None else q.least_db for q in floats]
        if not ratios:
            return Measured(float("inf"), float("inf"))
        return Measured(min(ratios), decibels(1.0, float(np.mean(10.0 ** (-np.array(ratios) / 10)))), min(least))

    def of(self, annotated: ir.Model) -> Measured:
        """How well an annotated model's outputs follow the float model's."""
        return Tuner(self, annotated).measure({})


class Tuner:
    """An annotated model, simulated with steps and weights that change from run to run. weights: names of further
    constants that may."""

    def __init__(self, judge: Judge, annotated: ir.Model, weights: Sequence[str] = ()) -> None:
        self._judge = judge
        simulation = Simulation(annotated)
        self._steps = dict(simulation.steps)
        self._exact = _layer_weights(annotated)
        large = side_by_side(simulation.model, judge.size) if judge.whole else None
        model = simulation.model if large is None else large
        self._shapes = {str(v.name): tuple(v.shape.numpy()) for v in model.graph.inputs if v.shape is not None}
        self._defaults: Arrays = {}
        graph = model.graph
        for name in [
            *self._exact,
            *biases_of(annotated),
            *weights,
            *(n for names in self._steps.values() for n in names),
        ]:
            value = graph.initializers.pop(name)
            assert value.const_value is not None
            array = np.asarray(value.const_value.numpy())
            self._defaults[name] = array
            value.const_value, value.shape, value.type = None, ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
            graph.inputs.append(value)
        self._interpreter = OnnxRuntime(model, threads=ALL_CORES, extra_outputs=judge.names)

    def __contains__(self, value: str) -> bool:
        """Whether the value of that name is rounded."""
        return value in self._steps

    def measure(
        self,
        changes: Mapping[str, Step],
        exact: Collection[str] = (),
        judge: Judge | None = None,
        others: Arrays | None = None,
    ) -> Measured:
        """The quality with other steps for some values, by the names that they have in the annotated model.

        exact: names of weights that are not rounded. judge: in place of the tuner's own, on a part of its samples.
        others: constants in place of the model's, by name: biases (`biases_of` a model that differs in its steps alone)
        and the tuner's further weights.
        """
        judge = judge or self._judge
        steps = self._defaults | {name: self._exact[name] for name in exact if name in self._exact} | (others or {})
        for value, step in changes.items():
            if value in self._steps:
                numbers = (step.scale, step.low, step.high)
                steps |= {name: np.array(n, np.float32) for name, n in zip(self._steps[value], numbers)}
        parts = []
        for batch in judge.batches:
            outputs = in_batches(
                lambda runs: [self._interpreter.call(run | steps) for run in runs], batch, self._shapes
            )
            parts.append(dict(zip(judge.names, outputs[len(outputs) - len(judge.names) :])))
        return judge.measure(_joined(parts))


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def biases_of(annotated: ir.Model) -> Arrays:
    """The biases of integer layers as they are rounded, by name."""
    values = dict.fromkeys(layer.bias for layer in layers(annotated.graph) if is_integer(layer.node))
    return {
        str(value.name): q.dequantize(q.quantize(array))
        for value in values
        if value is not None and (q := quantization(value)) is not None and (array := constant(value)) is not None
    }


def _layer_weights(annotated: ir.Model) -> Arrays:
    """The unrounded weights of integer layers, by name."""
    values = [operators.weight(layer) for layer in layers(annotated.graph) if is_integer(layer.node)]
    return {
        str(value.name): np.ascontiguousarray(constant(value), np.float32)
        for value in values
        if value is not None and quantization(value) is not None
    }
