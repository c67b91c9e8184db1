"""Half of every group of channels removed: the model is smaller, and computes what the original does with zeros."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch

from edgecompress.analysis.channel_groups import channel_groups, prunable
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.channels import remove_channels, reorder_channels
from edgecompress.ingest import load
from nets.families import FAMILIES
from networks import NETWORKS, example
from pruning import run, zeroed


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Function from a name in FAMILIES to its canonical model, weights of a fixed seed."""
    folder = tmp_path_factory.mktemp("families")

    def model(name: str) -> ir.Model:
        kind, shape = FAMILIES[name]
        torch.manual_seed(0)
        module = kind().eval()
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                torch.nn.init.normal_(layer.bias)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, torch.zeros(shape), folder / name, dynamo=False, opset_version=17)
        return load(onnx.load(folder / name)).model

    return model


def check_half_of_every_group(model: ir.Model, inputs: dict[str, np.ndarray]) -> int:
    """How many groups there are that can be pruned."""
    groups = prunable(channel_groups(model))
    rng = np.random.default_rng(0)
    removed = {g: rng.permutation(g.size)[: g.size // 2] for g in groups}
    smaller = remove_channels(model, removed)
    outputs, before = run(smaller, inputs), statistics(model)
    assert [y.shape for y in outputs] == [tuple(int(d) for d in v.shape) for v in model.graph.outputs]
    if groups:
        assert statistics(smaller).macs < before.macs
    exact = {g: c for g, c in removed.items() if g.approximate is None}
    if len(exact) < len(removed):
        outputs = run(remove_channels(model, exact), inputs)
    for ours, expected in zip(outputs, run(zeroed(model, exact), inputs), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    return len(groups)


# groups of each family that can be pruned, counted by hand
GROUPS = {
    "vgg": 5, "resnet_padded_shortcut": 4, "resnext": 5, "inception": 9, "senet": 3, "efficientnet": 8,
    "shufflenet": 5, "feature_pyramid": 7, "generator": 3, "feed_forward": 2, "multi_head": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name, family):
    model = family(name)
    rng = np.random.default_rng(1)
    inputs = {v.name: rng.normal(0, 1, [int(d) for d in v.shape]).astype(np.float32) for v in model.graph.inputs}
    assert check_half_of_every_group(model, inputs) == GROUPS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, exported):
    check_half_of_every_group(load(exported(name)).model, example(name))


@pytest.mark.parametrize("name", ["vgg", "feed_forward", "generator"])
def test_another_order_computes_the_same(name, family):
    model, rng = family(name), np.random.default_rng(1)
    inputs = {v.name: rng.normal(0, 1, [int(d) for d in v.shape]).astype(np.float32) for v in model.graph.inputs}
    orders = {g: rng.permutation(g.size) for g in prunable(channel_groups(model))}
    other = reorder_channels(model, orders)
    weights = [(v.const_value.numpy(), other.graph.initializers[k].const_value.numpy()) for k, v in
               model.graph.initializers.items()]  # fmt: skip
    assert orders and sum(not np.array_equal(*pair) for pair in weights) >= len(orders)
    for before, after in zip(run(model, inputs), run(other, inputs), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_groups_print_themselves(family):
    groups = channel_groups(family("senet"))
    text = str(groups[0])
    assert text.startswith("/stem/stem.0/Conv: 12 channels\n  made by Conv /stem/stem.0/Conv, 27 weights a channel\n")
    assert "read by" in text and "in 11 other tensors" not in text.splitlines()[0]
    assert "all stay: output" in str(groups[-1])


def test_a_reshape_that_cannot_be_followed_is_named():
    """[6, 4] to [8, 3]: no channel of the one is one of the other."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]> g (float[1, 5] x) => (float[1, 8, 2] y)
        <int64[3] s1 = {1, 6, 4}, int64[3] s2 = {1, 8, 3}> {
            a = Gemm<transB=1>(x, w, b)  c = Relu(a)  d = Reshape(c, s1)  e = Sigmoid(d)  f = Reshape(e, s2)
            h = Tanh(f)  y = MatMul(h, v)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (24, 5)), ("b", (24,)), ("v", (3, 2))):
        array = rng.normal(0, 1, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    groups = channel_groups(load(model).model)
    assert not prunable(groups) and "Reshape" in groups[0].fixed and "[1, 6, 4]" in groups[0].fixed
    with pytest.raises(ValueError, match="Reshape"):
        remove_channels(load(model).model, {groups[0]: [0]})
