"""What a data set looks like: extremes, copies, and whether it changes at all. One pass, of bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgecompress.evaluate.dataset import Dataset

MOST_VALUES = 1 << 25  # looked at, but at least FEWEST samples
FEWEST = 64
BATCH = 64


@dataclass(frozen=True, eq=False)
class InputFacts:
    """Of one input, as the model gets it. floats: whether it is float. count: of values. whole: whether all of them are
    integers. peaks: the largest magnitude in each sample.
    """

    floats: bool
    count: int
    low: float
    high: float
    whole: bool
    peaks: np.ndarray

    @property
    def constant(self) -> bool:
        """Whether all values are the same, and there are several."""
        return self.count > 1 and self.low == self.high


@dataclass(frozen=True, eq=False)
class DataFacts:
    """source: the name of the data. samples: how many there are; those that were looked at have a digest each. inputs:
    by name.
    """

    source: str
    samples: int
    digests: tuple[bytes, ...]
    inputs: Mapping[str, InputFacts]


def look_at(dataset: Dataset) -> DataFacts:
    """The facts of the first samples, so many that MOST_VALUES are read. Raises InputError as reading does."""
    sizes = [int(np.prod(adapter.shape, dtype=np.int64)) for _, adapter in dataset.columns.values()]
    few = dataset.head(max(MOST_VALUES // max(sum(sizes), 1), FEWEST))
    parts: dict[str, list[InputFacts]] = {name: [] for name in dataset.columns}
    digests: list[bytes] = []
    for batch in few.batches(BATCH):
        digests += _digests(batch)
        for name, array in batch.items():
            parts[name].append(_facts(array))
    return DataFacts(dataset.source, len(dataset), tuple(digests), {name: _joined(p) for name, p in parts.items()})


def _facts(array: np.ndarray) -> InputFacts:
    rows = array.reshape(len(array), -1)
    floats = array.dtype.kind == "f"
    whole = not floats or bool((np.rint(rows) == rows).all())
    if not rows.size:
        return InputFacts(floats, 0, 0.0, 0.0, whole, np.zeros(len(rows)))
    peaks = np.maximum(rows.max(axis=1).astype(np.float64), -rows.min(axis=1).astype(np.float64))
    return InputFacts(floats, rows.size, float(rows.min()), float(rows.max()), whole, peaks)


def _joined(parts: list[InputFacts]) -> InputFacts:
    return InputFacts(
        floats=parts[0].floats,
        count=sum(p.count for p in parts),
        low=min(p.low for p in parts),
        high=max(p.high for p in parts),
        whole=all(p.whole for p in parts),
        peaks=np.concatenate([p.peaks for p in parts]),
    )


def _digests(batch: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    for rows in zip(*(np.ascontiguousarray(batch[name]) for name in sorted(batch)), strict=True):
        digest = hashlib.blake2b(digest_size=8)
        for row in rows:
            digest.update(row.tobytes())
        yield digest.digest()
