"""Runs a model piece by piece while its weights change: each node once, in front of the layer that asks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.quantize.batch import Runner, batch_size, side_by_side
from edgecompress.compress.quantize.matrices import input_rows
from edgecompress.evaluate.dataset import Dataset
from edgecompress.evaluate.interpreters import OnnxRuntime

THREADS = 0  # all cores
ROWS, ROWS_PER_INPUT = 1 << 15, 64  # of a layer's matrix product that moments are over, where there are as many
FEWEST, MOST = 64, 1024  # samples
MACS = 400_000_000_000  # of all samples: about half a minute on two cores
LIVE_BYTES, ALIVE = 1 << 29, 2  # of the values of all samples that lie between two pieces: so many of the largest size


class Piecewise:
    """The model in front of one layer after the other, with the values of all samples that layers behind still read.

    model: a clone of the one given, perhaps for many samples at once. Whoever changes a weight here, before anything
    reads what its layer makes, sees the effect in all layers behind. Layers are asked for in the order of the graph.
    """

    def __init__(self, model: ir.Model, dataset: Dataset, seed: int) -> None:
        """seed: of the choice of rows."""
        dataset = dataset.head(_samples(model, dataset))
        batch = len(dataset) // -(-len(dataset) // batch_size(model))  # so that no sample, or few, are left over
        whole = Runner(model, [str(v.name) for v in model.graph.outputs], batch).takes_all(next(dataset.batches(batch)))
        large = side_by_side(model, batch) if whole else None
        self.model = model.clone() if large is None else large
        self._nodes = {str(node.name): node for node in self.model.graph}
        self._random, self._done = np.random.default_rng(seed), set[ir.Node]()
        shapes = {str(v.name): _shape(v) for v in self.model.graph.inputs}
        sample = {name: array.shape[1:] for name, array in next(dataset.batches(1)).items()}
        name = next(iter(shapes))
        own = max(int(np.prod(shapes[name]) // max(np.prod(sample[name], dtype=int), 1)), 1)
        self._batches = [
            {n: np.resize(batch[n], shapes[n]) for n in shapes}
            for batch in dataset.head(max(len(dataset) // own * own, 1)).batches(own)
        ]

    def second_moments(self, node: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(E[x x^T] [groups, k, k], E[x] [groups, k]) of the inputs x of one output of a node, float64."""
        found = self._nodes[node]
        most = max(ROWS, ROWS_PER_INPUT * k) // len(self._batches) + 1
        source = found.inputs[0]
        assert source is not None
        products, sums, count = np.zeros(1), np.zeros(1), 0
        for array in self._values(source):
            rows = input_rows(found, array, most, self._random)
            products, sums = products + rows.swapaxes(1, 2) @ rows, sums + rows.sum(axis=1, dtype=np.float64)
            count += rows.shape[1]
        return products / count, sums / count

    def _values(self, value: ir.Value) -> list[np.ndarray]:
        """Of all batches."""
        name = str(value.name)
        if name not in self._batches[0]:
            self._run_to(value)
        return [batch[name] for batch in self._batches]

    def _run_to(self, value: ir.Value) -> None:
        piece = self._in_front_of(value)
        self._done |= piece
        read = dict.fromkeys(v for node in piece for v in _inputs(node))
        inputs = [v for v in read if str(v.name) in self._batches[0]]
        outputs = [v for node in piece for v in node.outputs if v is value or self._is_read_behind(v)]
        graph = ir.convenience.extract(self.model.graph, inputs, outputs)
        run = OnnxRuntime(ir.Model(graph, ir_version=self.model.ir_version), threads=THREADS, arrange=False)
        names = [str(v.name) for v in outputs]
        over = [str(v.name) for v in inputs if not self._is_read_behind(v)]
        for batch in self._batches:
            made = run.call({str(v.name): batch[str(v.name)] for v in inputs})
            for name in over:
                del batch[name]
            batch.update(zip(names, made, strict=True))

    def _in_front_of(self, value: ir.Value) -> set[ir.Node]:
        """The nodes that have not run yet and that the value needs."""
        found, waiting = set[ir.Node](), [value]
        while waiting:
            node = waiting.pop().producer()
            if node is None or node in found or node in self._done:
                continue
            found.add(node)
            waiting += _inputs(node)
        return found

    def _is_read_behind(self, value: ir.Value) -> bool:
        return any(node not in self._done for node in value.consumers())


def _inputs(node: ir.Node) -> list[ir.Value]:
    """What it reads, in its inner graphs too."""
    found = [v for v in node.inputs if v is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found += [v for inner in attribute.as_graph() for v in _inputs(inner)]
    return found


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None  # canonical
    return tuple(value.shape.numpy())


def _samples(model: ir.Model, dataset: Dataset) -> int:
    """How many samples run at acceptable cost, whose values between two pieces take about LIVE_BYTES."""
    own = max(_shape(model.graph.inputs[0])[:1], default=1)
    values = [v for node in model.graph for v in node.outputs if v.shape is not None and v.shape.is_static()]
    largest = max((int(np.prod(_shape(v))) for v in values), default=1)
    affordable = max(MACS * own // max(statistics(model).macs, 1), FEWEST)
    fitting = max(LIVE_BYTES * own // (4 * ALIVE * largest), 1)
    return min(affordable, fitting, MOST, len(dataset))
