"""Evaluation data as records of bytes for a device, and the accuracy of the bytes that it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecompress.devices.artifact import Artifact
from edgecompress.errors import InputError
from edgecompress.evaluate.batching import feeds, join
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.evaluate.measures import Metrics, measures
from edgecompress.evaluate.metrics import AUTO
from edgecompress.lowering.tensor_io import QUANTIZED, TensorIO
from edgecompress.recipe import Preprocess
from edgecompress.support.validation import validated

RANDOM_SAMPLES = 20  # without data


@dataclass(frozen=True)
class Accuracy:
    """value: of the metric; both None where there are no labels, or the notes say why they can't be used."""

    value: float | None = None
    metric: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Samples:
    """records: bytes of each inference's inputs. arrays: the samples by input name."""

    artifact: Artifact
    data: Dataset
    records: tuple[bytes, ...]
    arrays: Mapping[str, np.ndarray]
    metric: Metrics = AUTO

    def outputs(self, stream: bytes) -> list[np.ndarray]:
        """A device's outputs, [n, ...] each, as real numbers in the model's axis order."""
        io = self.artifact.outputs
        real = [[t.from_device(a) for t, a in zip(io, arrays, strict=True)] for arrays in self.artifact.split(stream)]
        return join(real, self.arrays, _shapes(self.artifact))

    def accuracy(self, stream: bytes) -> Accuracy:
        """The metric of the first output that has labels."""
        if not self.data.is_labelled:
            return Accuracy()
        outputs = self.outputs(stream)
        try:
            measured = measures([t.name for t in self.artifact.outputs], outputs, self.data, self.metric)
            return Accuracy(measured[0](outputs), measured[0].metric.name) if measured else Accuracy()
        except InputError as error:
            return Accuracy(notes=(f"labels are not used: {error}",))


def load_samples(
    artifact: Artifact, eval: Any, runs: int | None, preprocess: Mapping[str, Any] | None, metric: Metrics = AUTO
) -> Samples:
    """The first `runs` samples (all, if None) of data as `convert` takes it; None: random ones.

    Raises InputError where they do not fit the artifact.
    """
    chosen = validated(Preprocess, dict(preprocess or {}), "preprocess")
    inputs = [_value(t) for t in artifact.inputs]
    if eval is None:
        data = load_data(_random(artifact.inputs, runs or RANDOM_SAMPLES), inputs, Preprocess())
        name = "random inputs"
    else:
        data = load_data(eval, inputs, chosen, [t.name for t in artifact.outputs])
        name = data.source
    data = data if runs is None else data.head(runs)
    columns: dict[str, list[np.ndarray]] = {}
    for batch in data.batches(64):
        for key, array in batch.items():
            columns.setdefault(key, []).append(array)
    arrays = {key: np.concatenate(parts) for key, parts in columns.items()}
    runs_of = feeds(arrays, _shapes(artifact))
    records = tuple(b"".join(t.to_device(run[t.name]).tobytes() for t in artifact.inputs) for run in runs_of)
    return Samples(artifact, replace(data, source=name), records, arrays, metric)


def _random(inputs: Sequence[TensorIO], count: int) -> dict[str, np.ndarray]:
    """Standard normal for floats; 0 and 1 for integers and masks, which are in range for any index."""
    generator, arrays = np.random.default_rng(0), {}
    for tensor in inputs:
        dtype, shape = _value_type(tensor).numpy(), (count, *_model_shape(tensor))
        drawn = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 2, shape)
        arrays[tensor.name] = drawn.astype(dtype)
    return arrays


def _shapes(artifact: Artifact) -> dict[str, tuple[int, ...]]:
    return {t.name: _model_shape(t) for t in artifact.inputs}


def _model_shape(tensor: TensorIO) -> tuple[int, ...]:
    return tuple(tensor.shape[tensor.form.index(axis)] for axis in range(len(tensor.shape)))


def _value_type(tensor: TensorIO) -> ir.DataType:
    return ir.DataType.FLOAT if tensor.dtype in QUANTIZED else tensor.dtype


def _value(tensor: TensorIO) -> ir.Value:
    return ir.Value(name=tensor.name, shape=ir.Shape(_model_shape(tensor)), type=ir.TensorType(_value_type(tensor)))
