"""Collects histograms of all activations over calibration data in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgecompress.compress.quantize.attention_masks import scores, that_counts
from edgecompress.compress.quantize.batch import Runner, batch_size
from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.errors import InputError
from edgecompress.graph.fusion import layers
from edgecompress.recipe import Quantize

if TYPE_CHECKING:
    from edgecompress.evaluate.dataset import Dataset


@dataclass(frozen=True)
class Calibration:
    """What was measured on calibration data.

    histograms: by value name, of every float value that exists at run time. samples: how many samples were run.
    dataset: the data itself, for corrections that need it again. method: how ranges are chosen where the recipe leaves
    that to measurement. methods: by value name, where a value has a better one.
    """

    histograms: dict[str, Histogram] = field(repr=False)
    samples: int
    dataset: Dataset = field(repr=False)
    method: str = "mse"
    methods: Mapping[str, str] = field(default_factory=dict, repr=False)


def runtime_values(model: ir.Model) -> list[ir.Value]:
    """The float values that could be int8, in order: graph inputs and outputs of layers. Others never exist."""
    produced = [v for layer in layers(model.graph) for v in layer.last.outputs]
    return [v for v in (*model.graph.inputs, *produced) if v.dtype == ir.DataType.FLOAT]


def calibrate(model: ir.Model, dataset: Dataset, settings: Quantize) -> Calibration:
    """Runs the model on at most settings.samples samples; memory does not depend on their number.

    Raises InputError when there is no sample or a value is NaN.
    """
    if settings.samples is not None:
        dataset = dataset.head(settings.samples)
    if not len(dataset):
        raise InputError(f"{dataset.source}: no calibration samples; int8 activations need at least one")
    inputs = {v.name for v in model.graph.inputs}
    histograms = {str(v.name): Histogram() for v in runtime_values(model)}
    in_front = {str(v.name): axis for v, axis in scores(model.graph).items()}
    size = min(batch_size(model), len(dataset))
    run = Runner(model, [name for name in histograms if name not in inputs], size)
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
    return Calibration(histograms, len(dataset), dataset)
