"""Quantization-aware training against integer interpreters, brute force, and what must not change."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.compress.cluster import cluster
from edgecompress.compress.cluster.trained import TrainedCodebook
from edgecompress.compress.quantize.aware import FakeQuantized, train_quantized
from edgecompress.compress.quantize.calibrate import runtime_values
from edgecompress.compress.quantize.dynamic import to_float16
from edgecompress.compress.quantize.fake import Range, Weight
from edgecompress.compress.quantize.weight_scales import quantize_weight
from edgecompress.emit import onnx as emit_onnx
from edgecompress.emit import pack as emit_pack
from edgecompress.emit import tflite as emit_tflite
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime
from edgecompress.graph.annotations import (
    Codebook,
    Sparsity,
    codebook,
    is_integer,
    quantization,
    set_sparsity,
    sparsity,
)
from edgecompress.recipe import Cluster, Train
from edgecompress.train import TrainData, train
from edgecompress.train.module.torch_model import TorchModel
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack
from quantizing import CONV, PLAIN, data, network, normal, parameters, samples, snr_db, static

NETWORKS = {
    "conv": dict(body=CONV, w=normal(4, 3, 3, 3), b=normal(4)),
    "residual": dict(
        body="""a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) s = Add(r, x) t = Relu(s)
            d = Conv <group = 3, pads = [1, 1, 1, 1], strides = [2, 2]> (t, v, b) y = Mul(d, d)""",
        w=normal(3, 3, 3, 3), v=normal(3, 1, 3, 3), b=normal(3),
    ),
    "concat": dict(
        body="""a = Conv(x, w, b) s = Sigmoid(a) c = Concat <axis = 1> (a, s, x)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) y = Relu(p)""",
        w=normal(4, 3, 1, 1), b=normal(4),
    ),
    "pooled": dict(
        body="""p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) a = Conv(p, w, b)
            z = Relu(a) g = GlobalAveragePool(z) f = Flatten(g) m = Gemm <transB = 1> (f, u, c) y = Relu(m)""",
        output="float[N, C] y", w=normal(4, 3, 1, 1), b=normal(4), u=normal(10, 4), c=normal(10),
    ),
    "transposed": dict(
        body="a = ConvTranspose <strides = [2, 2]> (x, w, b) c = Clip(a, zero, six) y = Sub(c, half)",
        w=normal(3, 5, 2, 2), b=normal(5), zero=np.float32(0), six=np.float32(6), half=np.float32(0.3),
    ),
    "operands": dict(
        body="""a = Mul(x, k) e = Add(a, x) p = PRelu(e, slope) q = Mul(p, three) l = LeakyRelu <alpha = 0.2> (q)
            y = HardSwish(l)""",
        k=normal(3, 1, 1), slope=np.abs(normal(3, 1, 1)), three=np.float32(3.1),
    ),
    "matmul": dict(
        body="m = MatMul(x, w) a = Add(m, b) n = MatMul(a, x) y = ReduceMean <keepdims = 1> (n, axes)",
        w=normal(8, 8), b=normal(8), axes=np.array([3]),
    ),
}  # fmt: skip
# networks with operators that the reference kernels compute by a fixed-point formula of their own
BY_FORMULA = {"operands"}


def fake_outputs(fake: FakeQuantized, arrays: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return fake.module.eval()(*map(torch.from_numpy, arrays.values()))[0].numpy()


def executed(model: ir.Model, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """By the runtime, kernel by kernel."""
    emitted = emit_pack.emit(model)
    executor, rows = Executor(emit_pack.plan(model)), []
    for i in range(len(next(iter(arrays.values())))):
        feed = [t.to_device(arrays[t.name][i : i + 1]) for t in emitted.inputs]
        rows.append(emitted.outputs[0].from_device(executor(*feed)[0]))
    return np.concatenate(rows)


def off(model: ir.Model, found: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """(largest difference in steps of y, share of all that differ)."""
    steps = np.abs(found - exact) / parameters(model, "y")[0]
    return float(steps.max()), float(np.mean(steps > 0.01))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_equals_integer_interpreters(name: str, per_channel: bool) -> None:
    model = network(**NETWORKS[name])
    found = static(model, settings=PLAIN.model_copy(update={"per_channel": per_channel}))
    assert all(is_integer(node) for node in found.graph)
    arrays = samples(model, 16, seed=9)
    most, share = off(found, fake_outputs(FakeQuantized(found), arrays), executed(found, arrays))
    assert most == 0 if name not in BY_FORMULA else most < 1.01 and share < 0.1
    emitted = emit_tflite.emit(found)
    exact = LiteRT(emitted.data, emitted).run(arrays)[0]
    most, share = off(found, fake_outputs(FakeQuantized(found, "xnnpack"), arrays), exact)
    largest = max(parameters(found, str(v.name))[0] for v in runtime_values(found))
    assert most < 1.01 * max(largest / parameters(found, "y")[0], 1) and share < 0.02


@pytest.mark.parametrize("float_layer", ["d", "s", "y"])
def test_float_layers_read_what_is_not_rounded(float_layer: str) -> None:
    """Even of an input, and of a value that int8 layers read as well."""
    model = network(
        **{
            **NETWORKS["residual"],
            "body": NETWORKS["residual"]["body"]
            .replace("Mul(d, d)", "Mul(d, e)")
            .replace("y =", "e = Conv <group = 3, pads = [1, 1, 1, 1], strides = [2, 2]> (t, v, b) y ="),
        }
    )
    found = static(model, settings=PLAIN.model_copy(update={"float_layers": [float_layer]}))
    assert not all(is_integer(node) for node in found.graph)
    arrays = samples(model, 16, seed=9)
    fake, exact = FakeQuantized(found), executed(found, arrays)
    np.testing.assert_allclose(fake_outputs(fake, arrays), exact, atol=1e-5 * np.abs(exact).max())
    again = fake.annotated()
    assert [n.op_type for n in again.graph] == [n.op_type for n in found.graph]
    np.testing.assert_array_equal(executed(again, arrays), exact)


seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(-128, 127), st.floats(1e-3, 10), st.sampled_from([(3, 4, 5, 6), (5, 7), (4,)]), st.booleans())
def test_ranges_have_the_gradients_of_learned_step_sizes(
    rng: np.random.Generator, zero_point: int, scale: float, shape: tuple[int, ...], channels_last: bool
) -> None:
    """S. Esser et al. 2020, equations 2 and 3, element by element."""
    range_ = Range(scale, zero_point, learned=True)
    step = float(np.float32(scale))
    x = rng.normal(0, 150 * step, shape).astype(np.float32)
    grad = rng.normal(size=shape).astype(np.float32)
    tensor = torch.from_numpy(x).requires_grad_()
    given_ = tensor.contiguous(memory_format=torch.channels_last) if channels_last and x.ndim == 4 else tensor
    range_(given_).backward(torch.from_numpy(grad))
    total, low, high = 0.0, -128 - zero_point, 127 - zero_point
    for v, g, found in zip(x.astype(float).ravel() / step, grad.ravel(), tensor.grad.numpy().ravel()):
        inside = low < v < high
        assert found == (g if inside else 0) or min(abs(v - low), abs(v - high)) < 1e-4
        total += g * (np.rint(v) - v if inside else np.clip(v, low, high))
    total *= step / np.sqrt(max(x[0].size, 1) * max(high, 1))  # of a logarithm: times the scale
    size = np.abs(grad * np.clip(x / step, low, high)).sum() * step / np.sqrt(max(x[0].size, 1) * max(high, 1))
    assert float(range_.log_ratio.grad) == pytest.approx(total, rel=1e-4, abs=1e-5 * size)


@settings(deadline=None, max_examples=30)
@given(seeds, st.sampled_from([0, 1, None]), st.booleans())
def test_weights_are_those_of_the_emitters_and_their_gradients_go_straight_through(
    rng: np.random.Generator, axis: int | None, pruned: bool
) -> None:
    weight = (rng.normal(size=(4, 3, 2, 2)) * rng.lognormal(0, 2, (4, 3, 1, 1))).astype(np.float32)
    mask = rng.random(weight.shape) < 0.5 if pruned else None
    parameter = torch.from_numpy(weight).requires_grad_()
    transform = Weight(axis, mask)
    grad = rng.normal(size=weight.shape).astype(np.float32)
    found = transform(parameter)
    found.backward(torch.from_numpy(grad))
    kept = weight if mask is None else np.where(mask, weight, 0)
    q = quantize_weight(kept, axis)
    np.testing.assert_allclose(transform.scale(torch.from_numpy(kept)).numpy(), q.scale, rtol=1e-6)
    stored = q.quantize(kept)
    difference = np.abs(found.detach().numpy() - q.dequantize(stored))
    assert np.mean(difference > 1e-5 * np.abs(kept).max()) < 0.03  # ties
    np.testing.assert_array_equal(parameter.grad.numpy(), grad if mask is None else grad * mask)
    assert mask is None or not found.detach().numpy()[~mask].any()


@settings(deadline=None, max_examples=30)
@given(seeds, st.booleans(), st.sampled_from([0, None]))
def test_a_centroid_has_the_gradient_of_all_its_members(
    rng: np.random.Generator, whole: bool, axis: int | None
) -> None:
    values = np.unique(np.append(rng.integers(-127, 128, 6), 0))
    centroids = values.astype(np.int8) if whole else (values / 50).astype(np.float32)
    indices = rng.integers(0, len(values), (5, 4, 3)).astype(np.uint8)
    scale = rng.uniform(0.5, 2, 5 if axis == 0 else 1).astype(np.float32)
    book = Codebook(centroids, indices, None if whole else scale, None if whole else axis)
    transform = TrainedCodebook(book, scale, axis, whole)
    grad = rng.normal(size=indices.shape).astype(np.float32)
    weight = transform(torch.zeros(indices.shape))
    scales = np.broadcast_to(scale.reshape(-1, 1, 1), indices.shape)
    np.testing.assert_allclose(weight.detach().numpy(), centroids[indices] * scales, rtol=1e-5)
    weight.backward(torch.from_numpy(grad))
    for i, centroid in enumerate(centroids):
        expected = 0.0 if centroid == 0 else (grad * scales)[indices == i].sum() * transform.largest
        assert transform.centroids.grad[i] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    expected = (grad * centroids[indices] * scales).reshape(len(scale), -1).sum(1)
    np.testing.assert_allclose(transform.log_ratio.grad.numpy(), expected, rtol=1e-3, atol=1e-3 * transform.largest)
    torch.optim.SGD(transform.parameters(), lr=1.0, momentum=0.9).step()
    assert transform.codebook().values()[indices == list(centroids).index(0)].any() == False  # noqa: E712


def dataset(model: ir.Model, count: int = 256) -> TrainData:
    return TrainData.from_dataset(data(model, samples(model, count)), model)


def imitation(model: ir.Model):
    """Mean squared error to the float model: needs no labels."""
    teacher = TorchModel(model, logits=True).eval()

    def loss(outputs, labels, batch):
        with torch.no_grad():
            target = teacher(*batch.inputs)[0]
        return torch.nn.functional.mse_loss(outputs[0], target) / target.square().mean()

    return loss


SHORT = Train(epochs=2, batch=32, optimizer="adam", lr=3e-3, validation=0)


def constants(model: ir.Model, count: int) -> dict[str, list[np.ndarray]]:
    """int8 arrays of `count` numbers in each kind of file, flat and sorted."""
    onnx_file = onnx.load_from_string(emit_onnx.emit(model))
    lite = Interpreter(model_content=emit_tflite.emit(model).data)
    packed = read_pack(emit_pack.emit(model).data).plan()
    found = {
        "onnx": [onnx.numpy_helper.to_array(i) for i in onnx_file.graph.initializer],
        "tflite": [
            lite.get_tensor(t["index"])
            for t in lite.get_tensor_details()
            if t["dtype"] == np.int8 and int(np.prod(t["shape"])) == count and not t["name"].startswith(("r", "a"))
        ],
        "pack": [t.data for t in packed.tensors if t.data is not None],
    }
    return {kind: [a for a in arrays if a.size == count and a.dtype == np.int8] for kind, arrays in found.items()}


def test_pruned_weights_are_zero_in_every_file_after_training() -> None:
    model = network(**{**NETWORKS["residual"], "w": normal(3, 3, 3, 3)})
    mask = np.random.default_rng(0).random((3, 3, 3, 3)) < 0.4
    weight = model.graph.initializers["w"]
    weight.const_value = ir.tensor(np.where(mask, weight.const_value.numpy(), 0).astype(np.float32), name="w")
    set_sparsity(weight, Sparsity(mask, "unstructured"))
    found = train_quantized(static(model), dataset(model), SHORT, loss=imitation(model)).model
    assert np.any(found.graph.initializers["w"].const_value.numpy()[mask] != weight.const_value.numpy()[mask])
    np.testing.assert_array_equal(sparsity(found.graph.initializers["w"]).mask, mask)
    for kind, arrays in constants(found, mask.size).items():
        assert len(arrays) == 1, kind
        assert np.count_nonzero(arrays[0]) <= mask.sum(), kind
        layout = mask if kind == "onnx" else mask.transpose(0, 2, 3, 1)
        assert not arrays[0].reshape(layout.shape)[~layout].any(), kind


def test_scales_are_learned_shared_or_fixed_as_the_operators_say() -> None:
    model = network(**NETWORKS["concat"])
    before = static(model)
    found = train_quantized(before, dataset(model), SHORT, loss=imitation(model)).model
    scales = {name: parameters(found, name)[0] for name in ("x", "s", "a", "c", "p", "y")}
    old = {name: parameters(before, name)[0] for name in scales}
    assert scales["s"] == old["s"] == 1 / 256
    assert scales["a"] == scales["c"] == scales["p"] and scales["x"] == old["x"]
    assert scales["y"] != old["y"]
    assert all(parameters(found, name)[1] == parameters(before, name)[1] for name in scales)
    bias, weight = (quantization(found.graph.initializers[name]) for name in ("b", "w"))
    np.testing.assert_array_equal(bias.scale, np.float32(scales["x"]) * weight.scale)


@pytest.mark.parametrize("precision", ["int8", "float32", "float16"])
def test_codebooks_learn_and_keep_their_indices(precision: str) -> None:
    """Without labels: the original model says what is right."""
    model = network(**NETWORKS["residual"])
    annotated = {"int8": static, "float32": ir.Model.clone, "float16": to_float16}[precision](model)
    coarse = cluster(annotated, model, data(model), Cluster(bits=1)).model
    loss, training = imitation(model), dataset(model)
    found = train_quantized(coarse, training, SHORT.model_copy(update={"epochs": 4, "lr": 0.02}), loss=loss)
    losses = [epoch.loss for epoch in found.history.epochs]
    batch = training.batch(np.arange(256))

    def now(annotated: ir.Model) -> float:
        fake = FakeQuantized(annotated)
        with torch.no_grad():
            return float(loss(fake.module.eval()(*batch.inputs), None, batch))

    assert now(found.model) < 0.95 * now(coarse) and losses[-1] < losses[0]
    for name in ("w", "v"):
        old, new = (codebook(m.graph.initializers[name]) for m in (coarse, found.model))
        value, q = found.model.graph.initializers[name], quantization(found.model.graph.initializers[name])
        assert new.centroids.dtype == old.centroids.dtype and len(new.centroids) <= len(old.centroids)
        assert all(len(np.unique(new.indices[old.indices == i])) == 1 for i in np.unique(old.indices))
        array = value.const_value.numpy()
        if precision == "int8":
            np.testing.assert_array_equal(q.quantize(array), new.values())
        else:
            np.testing.assert_array_equal(array, new.values())
            assert (q is None) == (precision == "float32") and (q is None or q.dtype == ir.DataType.FLOAT16)
    arrays = samples(model, 8, seed=4)
    emitted = OnnxRuntime(emit_onnx.emit(found.model), optimize=False).run(arrays)[0]
    ours = executed(found.model, arrays)
    close = np.abs(ours).max() * (1e-3 if precision == "float16" else 1e-4)  # float16 is rounded to when it is stored
    np.testing.assert_allclose(fake_outputs(FakeQuantized(found.model), arrays), ours, atol=close)
    assert snr_db(ours, emitted) > 30


def test_centroids_that_meet_become_one() -> None:
    book = Codebook(np.array([-3, 0, 4, 5], np.int8), np.array([[0, 1, 2], [3, 3, 1]], np.uint8))
    trained = TrainedCodebook(book, np.ones(1, np.float32), None, whole=True)
    with torch.no_grad():
        trained.centroids[3] = 4.2 / trained.largest
    found = trained.codebook()
    np.testing.assert_array_equal(found.centroids, np.array([-3, 0, 4], np.int8))
    np.testing.assert_array_equal(found.indices, [[0, 1, 2], [2, 2, 1]])


def test_a_model_after_training_computes_what_its_module_did() -> None:
    """The annotations carry all that was learned."""
    for name in ("pooled", "operands"):
        model = network(**NETWORKS[name])
        fake = FakeQuantized(static(model))
        train(fake.module, dataset(model), SHORT, loss=imitation(model))
        arrays = samples(model, 16, seed=9)
        inside = fake_outputs(fake, arrays)
        again = fake_outputs(FakeQuantized(fake.annotated()), arrays)
        assert off(fake.annotated(), inside, again)[1] < 0.01


@pytest.mark.parametrize("wide", [["a"], ["s", "t"], ["*"]])
def test_int16_layers_stay_int16(wide: list[str]) -> None:
    """Their values are not rounded in training: 16 bits are fine enough. Scales and types come back as they were."""
    model = network(**NETWORKS["residual"])
    arrays = samples(model, 8, seed=9)
    found = static(model, settings=PLAIN.model_copy(update={"int16_layers": wide}))
    fake = FakeQuantized(found)
    assert snr_db(executed(found, arrays), fake_outputs(fake, arrays)) > 40
    again = fake.annotated()
    for name in {str(v.name) for node in found.graph for v in node.outputs} | set(found.graph.initializers):
        (before,), (after,) = ([quantization(v) for v in every(m) if v.name == name] for m in (found, again))
        assert (before is None) == (after is None)
        assert (
            before is None or after is None or (before.dtype == after.dtype and np.allclose(before.scale, after.scale))
        )


def every(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.initializers.values(), *(v for node in model.graph for v in node.outputs)]
