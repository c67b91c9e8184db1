"""Samples kept apart from those that calibrate, to check artifacts on what they were not fitted to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.images import ImageSource
from edgecompress.evaluate.sources import Source

SHARE = 1 / 5
MOST = 512  # samples to check on
FEWEST = 10  # samples, of which a part can be spared
BATCH = 64


@dataclass(frozen=True)
class SelectedSource:
    """Some samples of a source. index: their places in it, rising."""

    source: Source
    index: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(samples, *shape of one sample)."""
        return (len(self.index), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The type that the samples are stored in."""
        return self.source.dtype

    def chunks(self, size: int, count: int) -> Iterator[np.ndarray]:
        """The first `count` samples in order, `size` at a time (fewer in the last)."""
        chosen = self._samples(self.index[:count])
        while rows := list(islice(chosen, size)):
            yield np.stack(rows)

    def at(self, index: np.ndarray) -> np.ndarray:
        """The samples at these places."""
        return self.source.at(np.asarray(self.index)[index])

    def _samples(self, index: Sequence[int]) -> Iterator[np.ndarray]:
        """One after the other, read in batches."""
        wanted, first = set(index), 0
        for chunk in self.source.chunks(BATCH, index[-1] + 1 if index else 0):
            yield from (row for place, row in enumerate(chunk, first) if place in wanted)
            first += len(chunk)


def select(dataset: Dataset, index: Iterable[int]) -> Dataset:
    """The samples at these places, in rising order."""
    places = tuple(sorted(map(int, index)))
    columns = {name: (_selected(source, places), adapter) for name, (source, adapter) in dataset.columns.items()}
    return dataset.with_samples(columns, list(places))


def _selected(source: Source, index: tuple[int, ...]) -> Source:
    if isinstance(source, ImageSource):  # the others need not be decoded
        return replace(source, files=tuple(source.files[i] for i in index))
    return SelectedSource(source, index)


def hold_out(dataset: Dataset) -> tuple[Dataset, Dataset | None]:
    """(the rest, about a fifth of the samples), or all and None where there are too few different ones.

    A sample's content alone decides, so that the order of the samples changes nothing, and equal samples stay together.
    """
    if len(dataset) < FEWEST:
        return dataset, None
    keys = [key for batch in dataset.batches(BATCH) for key in _digests(batch)]
    places: dict[bytes, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    held: list[int] = []
    for key in sorted(places):
        if len(held) + len(places[key]) <= min(int(SHARE * len(dataset)), MOST):
            held += places[key]
    if not held:
        return dataset, None
    kept = set(held)
    return select(dataset, [i for i in range(len(dataset)) if i not in kept]), select(dataset, held)


def _digests(batch: dict[str, np.ndarray]) -> Iterator[bytes]:
    for rows in zip(*(np.ascontiguousarray(batch[name]) for name in sorted(batch)), strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for row in rows:
            digest.update(row.tobytes())
        yield digest.digest()
