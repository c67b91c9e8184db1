"""Training samples as they are stored, in memory or where they lie, and the batches made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.sources import ArraySource
from edgecompress.support.present import present

CHUNK = 512  # samples read at a time
IN_MEMORY = 2 << 30  # bytes of the samples for one input that are read before training; more are read batch by batch


Prepare = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (samples as stored, their places) -> [n, ...] of an input


class Column(Protocol):
    """Samples that are read at places in any order."""

    def at(self, index: np.ndarray) -> np.ndarray:
        """[n, *sample] of the samples at n places."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """inputs: [n, ...] in the model's order. labels: [n, ...] of the first output, or None. index: the samples' places
    in the data. output_labels: those of other outputs, by name."""

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    index: np.ndarray
    output_labels: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TrainData:
    """columns: the samples as they are stored, for each input of the model. prepare: what makes them an input, by
    column. places: where this data's samples lie in the columns. labels: [samples, ...] int64 or float32, of the
    model's first output, or None. output_labels: likewise, those of other outputs by name.
    """

    columns: tuple[Column, ...]
    prepare: tuple[Prepare, ...]
    places: np.ndarray
    labels: np.ndarray | None
    output_labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    @staticmethod
    def from_dataset(data: Dataset, model: ir.Model) -> TrainData:
        """All samples of a dataset that was loaded for this model. Integers stay as they are stored (a quarter of
        the memory) and are made inputs batch by batch; so is everything above IN_MEMORY, which stays where it lies.

        Raises InputError as Dataset.batches, for samples that stay where they lie when they are read.
        """
        columns: list[Column] = []
        prepare: list[Prepare] = []
        for value in model.graph.inputs:
            source, adapter = data.columns[str(value.name)]
            batched = len(adapter.shape) == len(present(value.shape))  # samples that have the model's batch axis
            adapted, merged = _Adapted(adapter, batched), _merged if batched else _as_is
            if data.count * source.dtype.itemsize * math.prod(source.shape[1:]) > IN_MEMORY:
                columns.append(source)
                prepare.append(adapted)
                continue
            chunks = list(source.chunks(CHUNK, data.count))
            if source.dtype.kind == "f":
                chunks = [adapter(chunk, i * CHUNK) for i, chunk in enumerate(chunks)]
            columns.append(ArraySource(np.concatenate(chunks)))
            prepare.append(merged if source.dtype.kind == "f" else adapted)
        first = str(model.graph.outputs[0].name)
        others = {name: _as_stored(array) for name, array in data.output_labels.items() if name != first}
        return TrainData(tuple(columns), tuple(prepare), np.arange(data.count), _labels(data.labels), others)

    @staticmethod
    def from_arrays(inputs: Sequence[np.ndarray] | Mapping[str, np.ndarray], labels: np.ndarray | None) -> TrainData:
        """Inputs [samples, ...] as the model takes them, in its order."""
        columns = tuple(inputs.values()) if isinstance(inputs, Mapping) else tuple(inputs)
        if len({len(c) for c in columns}) != 1 or (labels is not None and len(labels) != len(columns[0])):
            counts = [len(c) for c in columns] + ([] if labels is None else [len(labels)])
            raise InputError(f"inputs and labels have different numbers of samples: {counts}")
        arrays = tuple(map(ArraySource, columns))
        return TrainData(arrays, (_as_is,) * len(columns), np.arange(len(columns[0])), _labels(labels))

    def batch(self, index: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """The samples at these places, on the device."""
        at = self.places[index]
        inputs = [prepare(column.at(at), at) for column, prepare in zip(self.columns, self.prepare)]
        labels = None if self.labels is None else torch.from_numpy(self.labels[index]).to(device)
        others = {name: torch.from_numpy(array[index]).to(device) for name, array in self.output_labels.items()}
        return Batch(tuple(torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in inputs), labels, index, others)

    def labels_of(self, outputs: Sequence[str]) -> list[np.ndarray | None]:
        """The labels of each of the model's outputs, whose names these are; None for one without."""
        return [self.labels, *(self.output_labels.get(name) for name in outputs[1:])]

    def subset(self, index: np.ndarray) -> TrainData:
        """The samples at these places."""
        labels = None if self.labels is None else self.labels[index]
        others = {name: array[index] for name, array in self.output_labels.items()}
        return replace(self, places=self.places[index], labels=labels, output_labels=others)

    def split(self, fraction: float, seed: int) -> tuple[TrainData, TrainData | None]:
        """(rest, fraction), drawn with the seed; None for an empty part."""
        rest, part = split_places(len(self), fraction, seed)
        return (self.subset(rest), self.subset(part)) if len(part) else (self, None)


def split_places(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of (the rest, a fraction) of so many samples, rising, drawn with the seed."""
    order, part = np.random.default_rng([seed, 0]).permutation(count), round(fraction * count)
    return np.sort(order[part:]), np.sort(order[:part])


class _Adapted:
    def __init__(self, adapter: Callable[[np.ndarray, np.ndarray], np.ndarray], batched: bool) -> None:
        self.adapter, self.batched = adapter, batched

    def __call__(self, stored: np.ndarray, places: np.ndarray) -> np.ndarray:
        x = self.adapter(stored, places)
        return _merged(x, places) if self.batched else x


def _as_is(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    return x


def _merged(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    return x.reshape(-1, *x.shape[2:])


def _labels(labels: np.ndarray | None) -> np.ndarray | None:
    return None if labels is None else _as_stored(labels)


def _as_stored(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
