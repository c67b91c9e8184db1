"""Whether a file whose batch size is open computes several samples at once as it computes each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.interpreters import InterpreterError, OnnxRuntime, TFLite, TFLiteIO
from edgecompress.evaluate.verify import CANDIDATES

SAMPLES = 3
# of a sample's outputs: another batch size may choose another kernel, whose rounding passes over a step of int8 here
# and there; a sample that is mixed with others is far off
LARGEST_ERROR = 0.03  # root of the mean square, over that of the outputs
LEAST_EQUAL = 0.99  # of integers

Arrays = dict[str, np.ndarray]


def difference(artifact: bytes | Path, format: str, io: TFLiteIO | None, feeds: Arrays) -> str | None:
    """In words, which interpreter gives something else for three samples at once than for each of them, or why none
    runs the file; None where neither is so. feeds: the samples, [3, ...] by input name."""
    refusals, runs = [], False
    for load, _ in CANDIDATES[format](artifact, io):
        try:
            interpreter = load()
            assert isinstance(interpreter, OnnxRuntime | TFLite)
            alone = [interpreter.call({k: v[i : i + 1] for k, v in feeds.items()}) for i in range(SAMPLES)]
        except InterpreterError as error:
            refusals.append(str(error))
            continue
        try:
            together = interpreter.call(feeds)
        except InterpreterError as error:
            return f"{error.interpreter} can't run {SAMPLES} samples at once: {error.reason}"
        if not all(_same(y, [outputs[i] for outputs in alone]) for i, y in enumerate(together)):
            return f"{interpreter.name} gives something else for {SAMPLES} samples at once"
        runs = True
    return None if runs else refusals[0]


def several_samples(dataset: Dataset, inputs: Sequence[ir.Value]) -> Arrays:
    """[3, ...] by input name. Where the data has fewer, what they hold in another order. inputs: of the model."""
    first, rng = next(iter(dataset.batches(SAMPLES))), np.random.default_rng(0)
    found = {}
    for value in inputs:
        assert value.shape is not None
        given = first[str(value.name)].reshape(-1, *value.shape.numpy()[1:])
        more = [rng.permutation(given[0].ravel()).reshape(given[0].shape) for _ in range(SAMPLES - len(given))]
        found[str(value.name)] = np.stack([*given, *more])
    return found


def _same(together: np.ndarray, alone: Sequence[np.ndarray]) -> bool:
    """Whether an output of several samples is that of each, side by side along the axis that grew."""
    grown = [axis for axis, (n, m) in enumerate(zip(together.shape, alone[0].shape)) if n != m]
    if together.ndim != alone[0].ndim or len(grown) > 1:
        return False
    if not grown:
        return all(_alike(together, y) for y in alone)
    return any(y.shape == together.shape and _alike(together, y) for y in _side_by_side(alone, grown[0]))


def _side_by_side(alone: Sequence[np.ndarray], axis: int) -> Iterator[np.ndarray]:
    """The samples outside of whatever else is in the dimension, or inside of it."""
    yield np.concatenate(alone, axis)
    stacked = np.stack(alone, axis + 1)
    yield stacked.reshape(*stacked.shape[:axis], -1, *stacked.shape[axis + 2 :])


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind != "f":
        return bool((a == b).mean() >= LEAST_EQUAL)
    known = np.isfinite(b)
    if not np.array_equal(known, np.isfinite(a)):
        return False
    x, y = a[known].astype(np.float64), b[known].astype(np.float64)
    return bool(np.sqrt(((x - y) ** 2).sum()) <= LARGEST_ERROR * np.sqrt((y**2).sum()))
