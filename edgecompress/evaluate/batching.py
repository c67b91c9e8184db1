"""Distributes samples over runs of a model with fixed shapes, and joins the outputs to samples again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Shape = tuple[int, ...]
Feed = dict[str, np.ndarray]
TOLERANCE = 1e-5  # of the largest magnitude, by which results of equal samples may differ


def in_batches(
    run: Callable[[list[Feed]], Sequence[Sequence[np.ndarray]]],
    inputs: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
) -> list[np.ndarray]:
    """The outputs, [n, ...] each, of samples [n, *sample] by input name.

    run: from the inputs of several runs, arrays of the model's own `shapes` by name, to the outputs of each. Where more
    axes than the first may be the batch's (the final states of recurrent layers are [directions, batch, hidden]), one
    more run tells: that of the first sample alone, in all places. Raises ValueError when inputs don't share a batch
    size.
    """
    batch = _batch(inputs, shapes)
    runs = run(list(feeds(inputs, shapes)))
    if batch == 1 or all(_axes(output, batch) in ([0], []) for output in runs[0]):
        return join(runs, inputs, shapes)
    (alike,) = run([_feed(np.zeros(batch, np.intp), inputs, shapes)])
    return join(runs, inputs, shapes, alike)


def feeds(inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Iterator[Feed]:
    """Yields the inputs of each run. The last one is filled up with the last sample. Raises ValueError when inputs
    don't share a batch size."""
    batch, count = _batch(inputs, shapes), len(next(iter(inputs.values())))
    for start in range(0, count, batch):
        yield _feed(np.minimum(np.arange(start, start + batch), count - 1), inputs, shapes)


def join(
    runs: Sequence[Sequence[np.ndarray]],
    inputs: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
    alike: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Joins the outputs of all runs to [n, ...] each, along the batch axis, or stacked when an output has none.

    alike: the outputs of a run of equal samples. The batch axis is the first along which these are constant; without
    them, axis 0 where it is as long as the batch.
    """
    batch, count = _batch(inputs, shapes), len(next(iter(inputs.values())))
    joined = []
    for i, parts in enumerate(zip(*runs, strict=True)):
        axes = _axes(parts[0], batch)
        if alike is None or axes == [0]:
            axes = [axis for axis in axes if axis == 0]
        else:
            axes = [axis for axis in axes if _is_constant(alike[i], axis)]
        if axes:
            moved = [np.moveaxis(p, axes[0], 0) for p in parts]
            array = (moved[0] if len(moved) == 1 else np.concatenate(moved))[:count]
        else:
            array = parts[0][None] if len(parts) == 1 else np.stack(parts)
        joined.append(array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array)
    return joined


def _feed(rows: np.ndarray, inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Feed:
    return {name: inputs[name][rows].reshape(shape) for name, shape in shapes.items()}


def _axes(output: np.ndarray, batch: int) -> list[int]:
    """The axes as long as the batch."""
    return [axis for axis, size in enumerate(output.shape) if size == batch]


def _batch(inputs: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> int:
    """How many samples one run takes: axis 0 of the inputs when samples lack that axis, else 1."""
    sizes = {shape[0] for name, shape in shapes.items() if inputs[name].ndim == len(shape)}
    if len(sizes) > 1 or (sizes - {1} and any(inputs[n].ndim > len(s) for n, s in shapes.items())):
        raise ValueError(f"inputs of shapes {dict(shapes)} don't share one batch size")
    return sizes.pop() if sizes else 1


def _is_constant(output: np.ndarray, axis: int) -> bool:
    bound = TOLERANCE * np.abs(output[np.isfinite(output)]).max(initial=0.0)
    return np.allclose(output, output.take([0], axis), rtol=0, atol=bound, equal_nan=True)
