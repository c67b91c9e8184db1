"""Moments of a layer's inputs in the model as clustered so far, with its outputs in the float model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgecompress.compress.quantize.batch import Runner, batch_size
from edgecompress.compress.quantize.matrices import rows
from edgecompress.compress.quantize.moments import Accumulator, Moments
from edgecompress.compress.quantize.simulate import Simulation
from edgecompress.evaluate.dataset import Dataset
from edgecompress.graph.fusion import Layer

ROWS = 1 << 15  # that moments are over, at least
ROWS_PER_INPUT = 64  # at least, for each input of one output
SAMPLES = 128  # at least, where the data has them: positions of one sample are much alike


class Calibrator:
    """Runs the float model `reference` and a clustered one side by side on calibration data.

    seed: of the choice of positions that moments are over.
    """

    def __init__(self, reference: ir.Model, dataset: Dataset, seed: int) -> None:
        self._reference, self._dataset, self._seed = reference, dataset, seed
        self._batch = min(batch_size(reference), len(dataset))
        outputs = [str(v.name) for v in reference.graph.outputs]
        first = next(dataset.batches(self._batch))
        self._whole = Runner(reference, outputs, self._batch).takes_all(first)

    def moments(self, model: ir.Model, layer: Layer, channels: int, k: int) -> Moments:
        """model: annotated, with the names of `reference`. layer: one of its own, a matrix [channels, k]."""
        joint, x, y = self._joint(model, layer)
        inputs = {str(v.name) for v in joint.graph.inputs}
        names = [str(v.name) for v in (x, y)]
        run = Runner(joint, [name for name in names if name not in inputs], self._batch, whole=self._whole)
        most = max(ROWS, ROWS_PER_INPUT * k)
        samples = self._samples(y, channels, most)
        generator, found = np.random.default_rng(self._seed), Accumulator(centred=layer.bias is not None)
        for batch in self._dataset.head(samples).batches(self._batch):
            values = batch | run(batch)
            share = -(-most * len(next(iter(batch.values()))) // samples)
            found.add(*rows(layer.node, values[names[0]], values[names[1]], share, generator))
        return found.moments()

    def _samples(self, y: ir.Value, channels: int, most: int) -> int:
        """Enough for `most` rows; y [own batch, ...] has positions of `channels` numbers each."""
        assert y.shape is not None
        own = self._reference.graph.inputs[0].shape
        positions = int(np.prod(y.shape.numpy())) // channels // (own.numpy()[0] if own is not None else 1)
        return min(max(SAMPLES, -(-most // max(positions, 1))), len(self._dataset))

    def _joint(self, model: ir.Model, layer: Layer) -> tuple[ir.Model, ir.Value, ir.Value]:
        """Both models in one, as far as two values need them: the layer's input as the clustered model
        computes it, and the layer's output, with its bias and before its activation, of the float model."""
        joint = Simulation(model)
        wanted = joint.add_float_model(self._reference)[str((layer.bias_add or layer.node).outputs[0].name)]
        name = str(layer.node.outputs[0].name)
        values = {str(v.name): v for node in joint.graph for v in node.outputs}
        made = (joint.roundings[name].exact if name in joint.roundings else values[name]).producer()
        assert made is not None and made.inputs[0] is not None
        source = made.inputs[0]
        joint.graph.outputs.clear()
        joint.graph.outputs.extend(v for v in (source, wanted) if v.producer() is not None)
        RemoveUnusedNodesPass()(joint.model)
        return joint.model, source, wanted
