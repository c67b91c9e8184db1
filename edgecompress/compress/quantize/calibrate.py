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
    if settings.samples is not None:
        dataset = dataset.head(settings.samples)
    if not len(dataset):
        raise InputError(f"{dataset.source}: no calibration samples; int8 activations need at least one")
    histograms = {str(v.name): Histogram() for v in runtime_values(model)}
    judged = max(judging_places(dataset, model).stop, judging_batch(dataset, model).stop)
    outputs = _measure(model, dataset, histograms, judged)
    for sizes, other in in_other_shapes(model):
        _measure(other, dataset.cut_to(sizes.inputs), histograms)
    return Calibration(histograms, len(dataset), dataset, model=model, outputs=outputs)


def _measure(
    model: ir.Model, dataset: Dataset, histograms: Mapping[str, Histogram], judged: int = 0
) -> dict[str, np.ndarray]:
    """Adds what the model computes on all samples to the histograms, by value name; returns its measured outputs for
    the first samples, as many as are judged."""
    inputs = {v.name for v in model.graph.inputs}
    in_front = {str(v.name): axis for v, axis in scores(model.graph).items()}
    size = min(batch_size(model), len(dataset))
    run = Runner(model, [name for name in histograms if name not in inputs], size)
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in measured_outputs(model) if name in histograms}
    done = 0
    for batch in dataset.batches(size):
        values = {name: x for name, x in batch.items() if name in histograms} | run(batch)
        for name, array in values.items():
            try:
                histograms[name].update(that_counts(array, in_front[name]) if name in in_front else array)
            except ValueError:
                raise InputError(
                    f"{dataset.source}: the model computes NaN at value {name!r} on this calibration data; "
                    "check the data's scale (preprocess) and the model"
                ) from None
        for name, kept in outputs.items() if done < judged else ():
            kept.append(values[name][: judged - done].copy())
        done += len(next(iter(batch.values())))
    joined = {name: np.concatenate(kept) for name, kept in outputs.items() if kept}
    return {name: x for name, x in joined.items() if len(x) == judged}  # others have no axis of samples
