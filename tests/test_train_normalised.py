"""BatchNormalization behind convolutions: nothing changes by it, in ONNX Runtime, before training or folded again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.compress.prune.channels import remove_channels
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.train import TrainData
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.normalised import refresh_statistics, with_batchnorm


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


def test_statistics_are_measured_again_where_channels_are_gone(exported) -> None:
    """Against torch's own BatchNorm over the whole batch: behind each, mean and deviation are its bias and scale."""
    import torch

    model = load(exported("residual")).model
    shape = tuple(int(d) for d in model.graph.inputs[0].shape.numpy()[1:])
    x = np.random.default_rng(3).normal(1.0, 2.0, size=(512, *shape)).astype(np.float32)
    data = TrainData.from_arrays([x], None)
    normalised = with_batchnorm(model, data)
    groups = prunable(channel_groups(normalised))
    pruned = remove_channels(normalised, {g: np.arange(g.size // 2) for g in groups})
    refreshed = refresh_statistics(pruned, data)
    norms = [n for n in refreshed.graph if n.op_type == "BatchNormalization"]
    names = [n.outputs[0].name for n in norms]
    errors = []
    for other in (pruned, refreshed):
        with torch.no_grad():
            _, found = TorchModel(other).eval()(torch.from_numpy(x), capture=names)
            _, wanted = TorchModel(other).train()(torch.from_numpy(x), capture=names)
        errors.append(max(float((found[n] - wanted[n]).square().mean() / wanted[n].var()) for n in names))
    assert errors[1] < 1e-3 < 1e-2 < errors[0]
    last = norms[0]  # nothing in front of it is normalised, so its statistics are exactly the batch's
    bias = last.inputs[2].const_value.numpy()
    np.testing.assert_allclose(found[names[0]].mean((0, 2, 3)).numpy(), bias, atol=1e-3 * np.abs(bias).max())
    assert refresh_statistics(model, data) is model


def test_statistics_are_of_all_samples_of_sorted_data(exported) -> None:
    model = load(exported("residual")).model
    shape = tuple(int(d) for d in model.graph.inputs[0].shape.numpy()[1:])
    x = np.random.default_rng(4).normal(size=(1200, *shape)).astype(np.float32)
    x[1000:] += 20  # the last class alone
    found = {}
    for name, order in (("sorted", np.arange(1200)), ("mixed", np.random.default_rng(5).permutation(1200))):
        normalised = with_batchnorm(model, TrainData.from_arrays([x[order]], None))
        norm = next(n for n in normalised.graph if n.op_type == "BatchNormalization")
        found[name] = norm.inputs[4].const_value.numpy()
    np.testing.assert_allclose(found["sorted"], found["mixed"], rtol=0.1)
