"""Data for models with states: sequences of what their other inputs get."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import Dataset, load_data, sample_shapes
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.streams import Streams, shape_of
from edgecompress.graph.states import kept
from edgecompress.recipe import Preprocess

MOST_FRAMES = 4096  # steps that calibrate, spread over all sequences
BATCH = 64  # sequences that run side by side


def load_sequences(spec: Any, model: ir.Model, preprocess: Preprocess) -> Dataset:
    """Data for a model with states: what `load_data` takes, with samples [steps, ...] for each input that is no state.

    Raises InputError where that does not fit.
    """
    graph, names = model.graph, kept(model.graph)
    inputs = [v for v in graph.inputs if v.name not in names]
    if isinstance(spec, Dataset):
        return spec
    found = sample_shapes(spec, preprocess, [str(v.name) for v in inputs])
    values = []
    for value in inputs:
        frame, sample = shape_of(value), found.get(str(value.name))
        if sample is None or len(sample) < 2 or math.prod(sample[1:]) != math.prod(frame):
            given = "none" if sample is None else list(sample)
            raise InputError(
                f"input {value.name!r}: a model with states takes sequences, [samples, steps, "
                f"{', '.join(map(str, frame[1:]))}], of its other inputs; the samples are {given}"
            )
        values.append(ir.Value(name=value.name, shape=ir.Shape([1, *sample]), type=value.type))
    steps = {shape_of(v)[1] for v in values}
    if len(steps) > 1:
        raise InputError(f"the inputs have sequences of different lengths: {sorted(steps)}")
    data = load_data(spec, values, preprocess)
    notes = (f"{len(data)} sequences of {steps.pop()} steps, each from states that are zero",)
    return replace(data.without_labels(), streams=Streams.of(graph), notes=(*data.notes, *notes))


def random_sequences(model: ir.Model, count: int, seed: int) -> Dataset:
    """As many sequences, of as many steps, of random numbers: standard normal, 0 and 1 for integers."""
    rng, arrays = np.random.default_rng(seed), {}
    for name, shape in Streams.of(model.graph).frames.items():
        dtype = next(v.dtype for v in model.graph.inputs if v.name == name)
        is_float = dtype is None or np.dtype(dtype.numpy()).kind == "f"
        whole = (count, count, *shape)
        arrays[name] = rng.standard_normal(whole).astype(np.float32) if is_float else rng.integers(0, 2, whole)
    return load_sequences(arrays, model, Preprocess())


def frames(model: ir.Model, sequences: Dataset) -> Dataset:
    """The single steps of sequences, with the states that the float model is in: at most MOST_FRAMES of them."""
    streams, interpreter = Streams.of(model.graph), OnnxRuntime(model)
    steps = next(iter(sequences.columns.values()))[1].shape[0]
    every = -(-len(sequences) * steps // MOST_FRAMES)  # a step of each sequence that is as far from the one before
    parts: dict[str, list[np.ndarray]] = {str(v.name): [] for v in model.graph.inputs}
    for batch in sequences.batches(BATCH):
        for step, given in enumerate(streams.inputs(interpreter, batch)):
            for name, array in given.items() if step % every == 0 else ():
                parts[name].append(array)
    arrays = {name: np.concatenate(rows) for name, rows in parts.items()}
    plain = {name: x[:, 0] for name, x in arrays.items()} if all(x.shape[1] == 1 for x in arrays.values()) else arrays
    return replace(load_data(plain, model.graph.inputs, Preprocess()), source=sequences.source)
