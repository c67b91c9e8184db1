"""Moments of a layer's inputs in the model as clustered so far, with its outputs in the float model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgecompress.compress.quantize.batch import Arrays, Runner, batch_size
from edgecompress.compress.quantize.matrices import rows
from edgecompress.compress.quantize.moments import Accumulator, Moments
from edgecompress.compress.quantize.simulate import Simulation
from edgecompress.evaluate.dataset import Dataset
from edgecompress.graph.fusion import Layer

ROWS = 1 << 15  # that moments are over, at least
ROWS_PER_INPUT = 64  # at least, for each input of one output
SAMPLES = 128  # at least, where the data has them: positions of one sample are much alike
KEPT_BYTES = 256 << 20  # of values between layers, which are computed again where they are more


class Calibrator:
    """Runs the float model `reference` and a clustered one side by side on calibration data.

    seed: of the choice of positions that moments are over.
    """

    def __init__(self, reference: ir.Model, dataset: Dataset, seed: int) -> None:
        self.reference, self.dataset, self.seed = reference, dataset, seed
        self.batch = min(batch_size(reference), len(dataset))
        outputs = [str(v.name) for v in reference.graph.outputs]
        first = next(dataset.batches(self.batch))
        self.whole = Runner(reference, outputs, self.batch).takes_all(first)

    def walk(self, model: ir.Model) -> Walk:
        """model: annotated, with the names of `reference`."""
        return Walk(self, model)

    def samples(self, y: ir.Value, channels: int, most: int) -> int:
        """Enough for `most` rows; y [own batch, ...] has positions of `channels` numbers each."""
        assert y.shape is not None
        own = self.reference.graph.inputs[0].shape
        positions = int(np.prod(y.shape.numpy())) // channels // (own.numpy()[0] if own is not None else 1)
        return min(max(SAMPLES, -(-most // max(positions, 1))), len(self.dataset))


class Walk:
    """From layer to layer, in the order of the graph. After a layer's moments were asked for, its weights and its bias
    may change in the model, and nothing else.

    Each step computes what lies between two layers, from what the steps before left for it: so all steps together take
    as long as both models do once, and not once for each layer.
    """

    def __init__(self, calibrator: Calibrator, model: ir.Model) -> None:
        self._its, self._model = calibrator, model
        self._kept: list[Arrays] = []  # of each batch, values that nodes read which have not run
        self._samples = 0  # that they are of
        self._done: set[str] = set()  # values that have been computed

    def moments(self, layer: Layer, channels: int, k: int) -> Moments:
        """layer: one of the model's own, a matrix [channels, k]."""
        its = self._its
        joint, x, y = self._joint(layer)
        most = max(ROWS, ROWS_PER_INPUT * k)
        samples = its.samples(y, channels, most)
        if samples > self._samples:
            self._kept, self._samples, self._done = [], 0, set()
        count = -(-samples // its.batch)
        kept = self._kept[:count] or [Arrays() for _ in range(count)]
        done = self._done | _computed(joint.graph, (x, y), self._done)
        read = {str(v.name): v for v in _values(joint.graph) if v.name in done and _is_read(v, done)}
        ends = str(x.name), str(y.name)
        run = self._runner(joint, {x, y, *read.values()}, set(kept[0]))
        generator, found = np.random.default_rng(its.seed), Accumulator(centred=layer.bias is not None)
        left: list[Arrays] | None = []
        for batch, before in zip(its.dataset.head(samples).batches(its.batch), kept, strict=True):
            n = len(next(iter(batch.values())))
            values = batch | {name: a[:n] for name, a in before.items()}
            values |= run(values)
            found.add(*rows(layer.node, values[ends[0]], values[ends[1]], -(-most * n // samples), generator))
            if left is not None:
                left.append({name: values[name] for name in read})
                if not all(_by_sample(v, values[name], n) for name, v in read.items()) or _bytes(left) > KEPT_BYTES:
                    left = None
        if left is not None:
            self._kept, self._samples, self._done = left, samples, done
        return found.moments()

    def _joint(self, layer: Layer) -> tuple[ir.Model, ir.Value, ir.Value]:
        """Both models in one, and two of its values: the layer's input as the clustered model computes it, and the
        layer's output, with its bias and before its activation, of the float model."""
        joint = Simulation(self._model)
        wanted = joint.add_float_model(self._its.reference)[str((layer.bias_add or layer.node).outputs[0].name)]
        name = str(layer.node.outputs[0].name)
        values = {str(v.name): v for v in _values(joint.graph)}
        made = (joint.roundings[name].exact if name in joint.roundings else values[name]).producer()
        assert made is not None and made.inputs[0] is not None
        joint.graph.outputs.clear()
        return joint.model, made.inputs[0], wanted

    def _runner(self, joint: ir.Model, wanted: set[ir.Value], kept: set[str]) -> Callable[[Arrays], Arrays]:
        """From values by name to these, but for those that are kept, where the model is cut."""
        graph, own = joint.graph, len(joint.graph.inputs)
        missing = {v for v in wanted if v.name not in kept}
        for value in [v for v in _values(graph) if v.name in kept]:
            start = ir.Value(name=value.name, shape=value.shape, type=value.type)
            value.name = f"{value.name}/computed"
            for node, index in list(value.uses()):
                node.replace_input_with(index, start)
            graph.inputs.append(start)
        graph.outputs.extend(v for v in _values(graph) if v in missing)
        RemoveUnusedNodesPass()(joint)
        for value in [v for v in graph.inputs[own:] if not v.uses()]:
            graph.inputs.remove(value)
        outputs, inputs = [str(v.name) for v in graph.outputs], [str(v.name) for v in graph.inputs]
        if not outputs:
            return lambda values: {}
        run = Runner(joint, outputs, self._its.batch, whole=self._its.whole)
        return lambda values: run({name: values[name] for name in inputs})


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """All that is computed, in order."""
    return (v for node in graph for v in node.outputs)


def _computed(graph: ir.Graph, wanted: Iterable[ir.Value], done: set[str]) -> set[str]:
    """The names of values that have to be computed for those, besides those that are there."""
    found, rest = set[str](), list(wanted)
    while rest:
        value = rest.pop()
        node = value.producer()
        if node is not None and value.name not in done and value.name not in found:
            found |= {str(v.name) for v in node.outputs}
            rest += [v for v in node.inputs if v is not None]
    return found


def _is_read(value: ir.Value, done: set[str]) -> bool:
    return any(str(node.outputs[0].name) not in done for node in value.consumers())


def _by_sample(value: ir.Value, array: np.ndarray, n: int) -> bool:
    """Whether an array of n samples is one that a model takes for this value: along the first axis, or stacked."""
    shape = () if value.shape is None or value.type is None else tuple(value.shape.numpy())
    return bool(shape) and array.shape in ((n, *shape[1:]), (n, *shape))


def _bytes(batches: list[Arrays]) -> int:
    return sum(a.nbytes for arrays in batches for a in arrays.values())
