"""Distributes samples over runs of a model with fixed shapes, and joins the outputs to samples again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Shape = tuple[int, ...]


def _batch(inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> int:
    """How many samples one run takes: axis 0 of the inputs when samples lack that axis, else 1."""
    sizes = {shape[0] for name, shape in shapes.items() if inputs[name].ndim == len(shape)}
    if len(sizes) > 1 or (sizes - {1} and any(inputs[n].ndim > len(s) for n, s in shapes.items())):
        raise ValueError(f"inputs of shapes {dict(shapes)} don't share one batch size")
    return sizes.pop() if sizes else 1


def feeds(inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Iterator[dict[str, np.ndarray]]:
    """Yields the inputs of each run, arrays of the model's own shapes by name, from samples [n, *sample] by input name.

    The last run is filled up with the last sample. Raises ValueError when inputs don't share a batch size.
    """
    batch, count = _batch(inputs, shapes), len(next(iter(inputs.values())))
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        yield {name: inputs[name][rows].reshape(shape) for name, shape in shapes.items()}


def join(
    runs: Sequence[Sequence[np.ndarray]], inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]
) -> list[np.ndarray]:
    """Joins the outputs of all runs to [n, ...] each, along the batch axis, or stacked when an output has none."""
    batch, count = _batch(inputs, shapes), len(next(iter(inputs.values())))
    joined = []
    for parts in zip(*runs, strict=True):
        batched = parts[0].shape[:1] == (batch,)
        array = np.concatenate(parts)[:count] if batched else np.stack(parts)
        joined.append(array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array)
    return joined
