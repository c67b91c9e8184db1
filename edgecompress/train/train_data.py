"""Training samples in memory, as they are stored, and the batches made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset
from edgecompress.support.present import present

CHUNK = 512  # samples read at a time


@dataclass(frozen=True, eq=False)
class Batch:
    """inputs: [n, ...] in the model's order. labels: [n, ...], or None. index: the samples' places in the data."""

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    index: np.ndarray


@dataclass(frozen=True, eq=False)
class TrainData:
    """columns: what is stored for each input of the model, [samples, ...]. prepare: what makes it an input, by
    column. labels: [samples, ...] int64 or float32, or None.
    """

    columns: tuple[np.ndarray, ...]
    prepare: tuple[Callable[[np.ndarray], np.ndarray], ...]
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.columns[0])

    @staticmethod
    def from_dataset(data: Dataset, model: ir.Model) -> TrainData:
        """All samples of a dataset that was loaded for this model. Integers stay as they are stored (a quarter of
        the memory) and are made inputs batch by batch.

        Raises InputError as Dataset.batches.
        """
        columns: list[np.ndarray] = []
        prepare: list[Callable[[np.ndarray], np.ndarray]] = []
        for value in model.graph.inputs:
            source, adapter = data.columns[str(value.name)]
            chunks = list(source.chunks(CHUNK, data.count))
            batched = len(adapter.shape) == len(present(value.shape))  # samples that have the model's batch axis
            if source.dtype.kind == "f":
                chunks = [adapter(chunk, i * CHUNK) for i, chunk in enumerate(chunks)]
                prepare.append(_merged if batched else _as_is)
            else:
                prepare.append(_Adapted(adapter, batched))
            columns.append(np.concatenate(chunks))
        return TrainData(tuple(columns), tuple(prepare), _labels(data.labels))

    @staticmethod
    def from_arrays(inputs: Sequence[np.ndarray] | Mapping[str, np.ndarray], labels: np.ndarray | None) -> TrainData:
        """Inputs [samples, ...] as the model takes them, in its order."""
        columns = tuple(inputs.values()) if isinstance(inputs, Mapping) else tuple(inputs)
        if len({len(c) for c in columns}) != 1 or (labels is not None and len(labels) != len(columns[0])):
            counts = [len(c) for c in columns] + ([] if labels is None else [len(labels)])
            raise InputError(f"inputs and labels have different numbers of samples: {counts}")
        return TrainData(columns, (_as_is,) * len(columns), _labels(labels))

    def batch(self, index: np.ndarray, device: torch.device | str = "cpu") -> Batch:
        """The samples at these places, on the device."""
        inputs = [prepare(column[index]) for column, prepare in zip(self.columns, self.prepare)]
        labels = None if self.labels is None else torch.from_numpy(self.labels[index]).to(device)
        return Batch(tuple(torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in inputs), labels, index)

    def subset(self, index: np.ndarray) -> TrainData:
        """The samples at these places."""
        labels = None if self.labels is None else self.labels[index]
        return TrainData(tuple(c[index] for c in self.columns), self.prepare, labels)

    def split(self, fraction: float, seed: int) -> tuple[TrainData, TrainData | None]:
        """(rest, fraction), drawn with the seed; None for an empty part."""
        rest, part = split_places(len(self), fraction, seed)
        return (self.subset(rest), self.subset(part)) if len(part) else (self, None)


def split_places(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of (the rest, a fraction) of so many samples, rising, drawn with the seed."""
    order, part = np.random.default_rng([seed, 0]).permutation(count), round(fraction * count)
    return np.sort(order[part:]), np.sort(order[:part])


class _Adapted:
    def __init__(self, adapter: Callable[[np.ndarray, int], np.ndarray], batched: bool) -> None:
        self.adapter, self.batched = adapter, batched

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        x = self.adapter(stored, 0)
        return _merged(x) if self.batched else x


def _as_is(x: np.ndarray) -> np.ndarray:
    return x


def _merged(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, *x.shape[2:])


def _labels(labels: np.ndarray | None) -> np.ndarray | None:
    if labels is None:
        return None
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
