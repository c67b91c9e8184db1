"""What a model's values are on data, for channels that are dead as far as float32 shows (dead.py)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.compress.prune.dead import Measured
from edgecompress.compress.quantize.batch import Runner, batch_size
from edgecompress.evaluate.dataset import Dataset
from edgecompress.ingest.equality import relative_error

SAMPLES = 64  # at most


def measured_values(model: ir.Model, dataset: Dataset) -> Measured:
    """Of all float values, on the first SAMPLES."""
    inputs = [str(v.name) for v in model.graph.inputs]
    outputs = [str(v.name) for n in model.graph for v in n.outputs if v.dtype == ir.DataType.FLOAT and v.name]
    largest: dict[str, float] = dict.fromkeys((*inputs, *outputs), 0.0)
    total: dict[str, np.ndarray] = {}
    dataset = dataset.head(SAMPLES)
    size = min(batch_size(model), len(dataset))
    run = Runner(model, outputs, size)
    for batch in dataset.batches(size):
        for name, array in {**{n: x for n, x in batch.items() if n in inputs}, **run(batch)}.items():
            sizes = np.abs(np.asarray(array, np.float64))
            largest[name] = max(largest[name], float(sizes.max(initial=0.0)))
            if sizes.ndim:
                total[name] = total.get(name, 0.0) + sizes.sum(0, keepdims=True) / len(dataset)
    return Measured(largest, total)


def difference_on_data(model: ir.Model, other: ir.Model, dataset: Dataset) -> float:
    """The largest relative error of any output of `other`, as `ingest.equality` has it, on the first SAMPLES."""
    dataset = dataset.head(SAMPLES)
    size = min(batch_size(model), len(dataset))
    names = [[str(v.name) for v in m.graph.outputs] for m in (model, other)]
    runners = [Runner(m, n, size) for m, n in zip((model, other), names)]
    worst = 0.0
    for batch in dataset.batches(size):
        expected, found = (list(run(batch).values()) for run in runners)
        worst = max([worst, *(relative_error(a, b) for a, b in zip(expected, found, strict=True))])
    return worst
