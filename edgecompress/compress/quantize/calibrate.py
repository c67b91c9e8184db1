"""Collects histograms of all activations over calibration data in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.attention_masks import scores, that_counts
from edgecompress.compress.quantize.batch import Arrays, Runner, batch_size
from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.compress.quantize.noise import judging_batch, judging_places, measured_outputs
from edgecompress.errors import InputError
from edgecompress.graph.fusion import layers
from edgecompress.ingest.several_shapes import in_other_shapes
from edgecompress.recipe import Quantize

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset


@dataclass(frozen=True)
class Calibration:
    """What was measured on calibration data.

    histograms: by value name, of every float value that exists at run time. samples: how many samples were run.
    dataset: the data itself, for corrections that need it again. method: how ranges are chosen where the recipe leaves
    that to measurement. methods: by value name, where a value has a better one. model: what was measured. outputs: what
    it gave for the first samples, by name.
    """

    histograms: dict[str, Histogram] = field(repr=False)
    samples: int
    dataset: Dataset = field(repr=False)
    method: str = "mse"
    methods: Mapping[str, str] = field(default_factory=dict, repr=False)
    model: ir.Model | None = field(default=None, repr=False)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def known(self, model: ir.Model, names: Sequence[str], samples: range) -> Arrays | None:
        """What the model gives for these samples, [n, ...] by name, if that was kept: not to compute it twice."""
        if model is not self.model or any(len(self.outputs.get(name, ())) < samples.stop for name in names):
            return None
        return {name: self.outputs[name][samples.start : samples.stop] for name in names}


def runtime_values(model: ir.Model) -> list[ir.Value]:
    """The float values that could be int8, in order: graph inputs and outputs of layers. Others never exist."""
    produced = [v for layer in layers(model.graph) for v in layer.last.outputs]
    return [v for v in (*model.graph.inputs, *produced) if v.dtype == ir.DataType.FLOAT]


def calibrate(model: ir.Model, dataset: Dataset, settings: Quantize) -> Calibration:
    """Runs the model, in each of its shapes, on at most settings.samples samples; memory does not depend on their
    number.

    Raises InputError when there is no sample or a value is NaN.
    """
    return Measuring(model, dataset, settings).all()


class Measuring:
    """Calibration in two steps, which one session makes: the first batch, and the rest.

    Raises InputError when there is no sample or a value is NaN.
    """

    def __init__(self, model: ir.Model, dataset: Dataset, settings: Quantize) -> None:
        if settings.samples is not None:
            dataset = dataset.head(settings.samples)
        if not len(dataset):
            raise InputError(f"{dataset.source}: no calibration samples; int8 activations need at least one")
        self._model, self._dataset = model, dataset
        self._histograms = {str(v.name): Histogram() for v in runtime_values(model)}
        self._count = _Counting(model, dataset, self._histograms)
        self._batches = dataset.batches(self._count.size)
        self._outputs: dict[str, list[np.ndarray]] = {n: [] for n in measured_outputs(model) if n in self._histograms}
        self._kept = max(judging_places(dataset, model).stop, judging_batch(dataset, model).stop, self._count.size)
        self._done = 0

    def first(self, names: Sequence[str] = ()) -> tuple[Calibration, Arrays]:
        """On the first batch alone, in the model's own shapes; and its values of these names, as far as they exist at
        run time."""
        values = self._add(next(self._batches))
        histograms = {name: histogram.copy() for name, histogram in self._histograms.items()}
        self._count.pause()
        return self._calibration(histograms), {name: values[name] for name in names if name in values}

    def all(self) -> Calibration:
        """On all samples, in every shape."""
        for batch in self._batches:
            self._add(batch)
        for sizes, other in in_other_shapes(self._model):
            dataset = self._dataset.cut_to(sizes.inputs)
            count = _Counting(other, dataset, self._histograms)
            for batch in dataset.batches(count.size):
                count(batch)
        return self._calibration(self._histograms)

    def _add(self, batch: Arrays) -> Arrays:
        values = self._count(batch)
        for name, parts in self._outputs.items() if self._done < self._kept else ():
            parts.append(values[name][: self._kept - self._done].copy())
        self._done += len(next(iter(batch.values())))
        return values

    def _calibration(self, histograms: dict[str, Histogram]) -> Calibration:
        joined = {name: np.concatenate(parts) for name, parts in self._outputs.items()}
        count, part = min(self._kept, self._done), self._dataset.head(self._done)
        outputs = {name: x for name, x in joined.items() if len(x) == count}  # others have no axis of samples
        return Calibration(histograms, len(part), part, model=self._model, outputs=outputs)


class _Counting:
    """Adds what the model computes on batches of `size` samples to histograms, by value name."""

    def __init__(self, model: ir.Model, dataset: Dataset, histograms: Mapping[str, Histogram]) -> None:
        self._histograms, self._source = histograms, dataset.source
        self._in_front = {str(v.name): axis for v, axis in scores(model.graph).items()}
        inputs = {v.name for v in model.graph.inputs}
        self.size = min(batch_size(model), len(dataset))
        self._run = Runner(model, [name for name in histograms if name not in inputs], self.size)

    def pause(self) -> None:
        """Takes no memory until the next batch."""
        self._run.close()

    def __call__(self, batch: Arrays) -> Arrays:
        values = {name: x for name, x in batch.items() if name in self._histograms} | self._run(batch)
        for name, array in values.items():
            counted = that_counts(array, self._in_front[name]) if name in self._in_front else array
            try:
                self._histograms[name].update(counted)
            except ValueError:
                raise InputError(
                    f"{self._source}: the model computes NaN at value {name!r} on this calibration data; "
                    "check the data's scale (preprocess) and the model"
                ) from None
        return values
