"""The torch module of a model computes what ONNX Runtime does, trains every weight, and goes back to a model."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from edgecompress.analysis.supported import OPERATORS
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.train.module.torch_model import TorchModel
from networks import NETWORKS, build, example, input_names

torch.set_num_threads(1)
LIMIT = 1e-5


@pytest.fixture(scope="module")
def loaded(exported):
    models: dict[str, ir.Model] = {}

    def model(name: str) -> ir.Model:
        if name not in models:
            models[name] = load(exported(name)).model
        return models[name]

    return model


def run_onnx(model: ir.Model, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A sample at a time: the model says batch 1. Outputs [n, ...], also where the batch isn't the first axis."""
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    runs = [session.run(None, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(count)]
    return [np.concatenate(outputs) for outputs in zip(*runs)]


def assert_close(ours, expected: list[np.ndarray], limit: float = LIMIT) -> None:
    for a, b in zip(ours, expected, strict=True):
        a = a.detach().numpy()
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= limit * max(1.0, np.abs(b).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_onnx_runtime(name, loaded):
    module = TorchModel(loaded(name)).eval()
    for batch in (1, 5):
        inputs = example(name, batch, seed=batch)
        tensors = [torch.from_numpy(inputs[v.name]) for v in loaded(name).graph.inputs]
        with torch.no_grad():
            assert_close(module(*tensors), run_onnx(loaded(name), inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_run_at_once(name, loaded):
    assert TorchModel(loaded(name))._batched


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_weight(name, loaded):
    module = TorchModel(loaded(name))
    outputs = module(*(torch.from_numpy(x) for x in example(name, 3).values()))
    generator = torch.Generator().manual_seed(0)
    floats = [y for y in outputs if y.requires_grad]
    assert floats or not module.weights
    for y in floats:
        (y * torch.randn(y.shape, generator=generator)).sum().backward(retain_graph=True)
    missing = [n for n, p in module.weights.items() if p.grad is None or not p.grad.any()]
    assert not missing


@pytest.mark.parametrize("name", NETWORKS)
def test_written_back(name, loaded):
    module = TorchModel(loaded(name)).eval()
    before = {k: p.detach().clone() for k, p in module.weights.items()}
    with torch.no_grad():
        for i, p in enumerate(module.weights.values()):
            p.mul_(1 + 0.05 * torch.sin(torch.arange(p.numel()) + i).reshape(p.shape))
    model = module.write_back()
    inputs = example(name, 2)
    with torch.no_grad():
        assert_close(module(*map(torch.from_numpy, inputs.values())), run_onnx(model, inputs))
    for key, tensor in before.items():  # the model it was made from is as it was
        np.testing.assert_array_equal(loaded(name).graph.initializers[key].const_value.numpy(), tensor)


def test_transforms_and_capture(loaded):
    model = loaded("residual")
    module = TorchModel(model).eval()
    x = torch.from_numpy(next(iter(example("residual", 2).values())))
    name = next(n for n, p in module.weights.items() if p.ndim == 4)
    inner = next(n.outputs[0].name for n in model.graph if n.op_type == "Relu")
    (plain,), captured = module(x, capture=[inner, name])
    assert captured[inner].shape[0] == 2 and (captured[inner] >= 0).all()
    torch.testing.assert_close(captured[name], module.weights[name])

    class Half(torch.nn.Module):
        def forward(self, tensor):
            return tensor / 2

    module.set_weight_transform(name, Half())
    module.set_value_transform(inner, Half())
    assert set(module.weight_transforms) == {name} and set(module.value_transforms) == {inner}
    (changed,), halved = module(x, capture=[inner, name])
    torch.testing.assert_close(halved[name], module.weights[name] / 2)
    assert not torch.allclose(changed, plain)
    written = module.write_back().graph.initializers[name].const_value.numpy()
    np.testing.assert_array_equal(written, (module.weights[name] / 2).detach().numpy())
    module.set_weight_transform(name, None)
    module.set_value_transform(inner, None)
    torch.testing.assert_close(module(x)[0], plain, rtol=0, atol=0)
    with pytest.raises(KeyError, match="'nothing' is not a constant"):
        module.set_weight_transform("nothing", Half())


def test_a_copy_is_its_own(loaded):
    module = TorchModel(loaded("residual")).eval()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    x = torch.from_numpy(next(iter(example("residual").values())))
    assert module(x)[0].any() and twin._source is module._source


def test_a_batch_that_would_mix_runs_one_by_one():
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1, 6] x) => (float[1, 6] y)'
        "<int64[1] axes = {0}> { mean = ReduceMean<keepdims = 0>(x, axes)\n y = Sub(x, mean)\n }"
    )
    module = TorchModel(ir.from_proto(graph)).eval()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert not module._batched
    (y,), captured = module(x, capture=["y"])
    assert not y.any() and torch.equal(captured["y"], y) and y.shape == x.shape


@pytest.mark.parametrize("name", ["residual", "autoencoder", "dense", "same_pads"])
def test_batchnorm_is_trained_and_folded(name, exported):
    """As left in, it equals ONNX Runtime; in training, torch's own layer; folded, the folded model."""
    source = exported(name) if name in ("dense", "same_pads") else build(name)  # exporters fold what they can
    shapes = None if name in ("dense", "same_pads") else dict(zip(input_names(name), NETWORKS[name].inputs))
    model = load(source, input_shapes=shapes, fold_batchnorm=False).model
    norm = next(n for n in model.graph if n.op_type == "BatchNormalization")
    module = TorchModel(model).eval()
    inputs = dict(zip((v.name for v in model.graph.inputs), example(name, 4, seed=3).values()))
    tensors = [torch.from_numpy(x) for x in inputs.values()]
    with torch.no_grad():
        assert_close(module(*tensors), run_onnx(model, inputs))
        assert_close(module(*tensors), run_onnx(load(exported(name)).model, example(name, 4, seed=3)))

    x, *constants = (str(v.name) for v in norm.inputs)
    scale, bias, mean, variance = (torch.tensor(model.graph.initializers[c].const_value.numpy()) for c in constants)
    module.train()
    _, captured = module(*tensors, capture=[x, norm.outputs[0].name])
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    expected = F.batch_norm(captured[x], mean, variance, scale, bias, True, 0.1, epsilon)
    torch.testing.assert_close(expected, captured[norm.outputs[0].name])
    written = module.write_back()
    for name, moved in zip(constants[2:], (mean, variance)):
        torch.testing.assert_close(moved, torch.tensor(written.graph.initializers[name].const_value.numpy()))
    folded = fold_batchnorm(written)
    assert {n.op_type for n in folded.graph} <= OPERATORS
    module.eval()
    with torch.no_grad():
        assert_close(module(*tensors), run_onnx(folded, inputs), 2e-5)
