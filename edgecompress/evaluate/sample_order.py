"""Samples in an order that their contents alone decide, so that the order in which a user has them changes nothing.

Steps look at parts of the data: a batch to fit on, another to judge by. Results of a batch may also differ in the last
bit from those of other batches. Both are the same for the same samples in any order, once they are sorted.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.sources import ArraySource, Source

LARGEST = 512 << 20  # bytes that are sorted, in memory; more stay in the order that they have
BATCH = 64  # samples that are read at a time


def in_order_of_content(dataset: Dataset) -> Dataset:
    """The dataset with its samples sorted by a digest of what they hold, unless they take more than LARGEST bytes.

    Raises InputError, as reading the dataset does, while samples still have the numbers that the user knows.
    """
    sizes = [s.dtype.itemsize * int(np.prod(s.shape[1:], dtype=np.int64)) for s, _ in dataset.columns.values()]
    if sum(sizes) * len(dataset) > LARGEST:
        return dataset
    for _ in dataset.batches(BATCH):
        pass  # checks every sample
    arrays = {name: _read(source, len(dataset)) for name, (source, _) in dataset.columns.items()}
    digests = [_digest([arrays[name][i] for name in sorted(arrays)]) for i in range(len(dataset))]
    order = np.array(sorted(range(len(dataset)), key=digests.__getitem__), np.intp)
    columns = {name: (ArraySource(arrays[name][order]), adapter) for name, (_, adapter) in dataset.columns.items()}
    return dataset.with_samples(columns, order.tolist())


def _read(source: Source, count: int) -> np.ndarray:
    return np.concatenate(list(source.chunks(BATCH, count)))


def _digest(arrays: list[np.ndarray]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
