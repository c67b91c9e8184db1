"""BatchNormalization behind convolutions: nothing changes by it, in ONNX Runtime, before training or folded again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import with_batchnorm


@pytest.mark.parametrize("name", ["residual", "mobilenet", "autoencoder"])
def test_outputs_stay(exported, name: str) -> None:
    model = load(exported(name)).model
    (value,) = model.graph.inputs
    shape = tuple(int(d) for d in value.shape.numpy()[1:])
    x = np.random.default_rng(0).normal(size=(300, *shape)).astype(np.float32)
    normalised = with_batchnorm(model, TrainData.from_arrays([x], None))
    convolutions = [n for n in model.graph if n.op_type == "Conv"]
    added = [n for n in normalised.graph if n.op_type == "BatchNormalization"]
    assert len(added) == len(convolutions)
    expected = OnnxRuntime(model).run({value.name: x[:8]})
    for other in (normalised, fold_batchnorm(normalised)):
        for a, b in zip(expected, OnnxRuntime(other).run({value.name: x[:8]}), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-4 * np.abs(a).max())
    assert all(v.const_value is not None for n in added for v in n.inputs[1:])
    for node in added:  # the weights in front of it have He et al.'s size
        weight = node.inputs[0].producer().inputs[1].const_value.numpy()
        assert np.square(weight).mean() * weight[0].size == pytest.approx(2, rel=1e-3)


def test_statistics_are_those_of_the_data(exported) -> None:
    import torch

    model = load(exported("residual")).model
    shape = tuple(int(d) for d in model.graph.inputs[0].shape.numpy()[1:])
    x = np.random.default_rng(1).normal(3.0, 2.0, size=(256, *shape)).astype(np.float32)
    module = TorchModel(with_batchnorm(model, TrainData.from_arrays([x], None)))
    batch = torch.from_numpy(x)
    with torch.no_grad():  # the batch's own statistics, as in training, are the stored ones
        trained, evaluated = module.train()(batch)[0], module.eval()(batch)[0]
    assert float((trained - evaluated).abs().max()) < 0.02 * float(evaluated.abs().max())
    assert isinstance(module.write_back(), ir.Model)


def test_what_is_normalised_is_not_normalised_twice(exported) -> None:
    model = load(exported("residual")).model
    shape = tuple(int(d) for d in model.graph.inputs[0].shape.numpy()[1:])
    data = TrainData.from_arrays([np.random.default_rng(2).normal(size=(64, *shape)).astype(np.float32)], None)
    once = with_batchnorm(model, data)
    twice = with_batchnorm(once, data)
    assert [n.op_type for n in twice.graph] == [n.op_type for n in once.graph]
