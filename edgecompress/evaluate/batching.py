"""Samples to the runs of a model of fixed shapes, and its outputs back to samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Shape = tuple[int, ...]


def _batch(inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> int:
    """How many samples one run takes: axis 0 of the inputs whose samples lack it, else 1."""
    sizes = {shape[0] for name, shape in shapes.items() if inputs[name].ndim == len(shape)}
    if len(sizes) > 1 or (sizes - {1} and any(inputs[n].ndim > len(s) for n, s in shapes.items())):
        raise ValueError(f"inputs of shapes {dict(shapes)} don't share one batch size")
    return sizes.pop() if sizes else 1


def feeds(inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Iterator[dict[str, np.ndarray]]:
    """Samples, [n, *sample] by input name -> one dict a run, arrays of the model's own shapes.

    The last run is filled up with the last sample. Raises ValueError when inputs don't share a batch size.
    """
    batch, count = _batch(inputs, shapes), len(next(iter(inputs.values())))
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        yield {name: inputs[name][rows].reshape(shape) for name, shape in shapes.items()}


def join(
    runs: Sequence[Sequence[np.ndarray]], inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]
) -> list[np.ndarray]:
    """The outputs of all runs -> [n, ...] each: along the batch axis, or stacked if an output has none."""
    batch, count = _batch(inputs, shapes), len(next(iter(inputs.values())))
    joined = []
    for parts in zip(*runs, strict=True):
        batched = parts[0].shape[:1] == (batch,)
        array = np.concatenate(parts)[:count] if batched else np.stack(parts)
        joined.append(array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array)
    return joined
