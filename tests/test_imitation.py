"""What models learn from the original one, with and without labels: every output, by what it is."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto
from torch.nn import functional as F

from edgecompress.compress.distill.distillation_loss import DistillationLoss
from edgecompress.compress.prune.prune_weights import prune_weights
from edgecompress.errors import InputError
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from edgecompress.recipe import Distill, Prune, Train
from edgecompress.train import TrainData
from edgecompress.train.losses import LOSSES, imitation, label_loss, softened, task_loss
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.output_kinds import OutputKind, output_kinds

torch.set_num_threads(1)

SAMPLES, FEATURES, HIDDEN = 1500, 8, 32
X = np.random.default_rng(0).normal(size=(SAMPLES, FEATURES)).astype(np.float32)
HEADS = {
    "numbers": "y = Gemm <transB=1> (g, w4)",
    "one_number": "y = Gemm <transB=1> (g, w1)",
    "softmax": "s = Gemm <transB=1> (g, w4) y = Softmax (s)",
    "log_softmax": "s = Gemm <transB=1> (g, w4) y = LogSoftmax (s)",
    "arg_max": "s = Gemm <transB=1> (g, w4) y = ArgMax <axis=1, keepdims=0> (s)",
    "arg_max_of_softmax": "s = Gemm <transB=1> (g, w4) p = Softmax (s) y = ArgMax <axis=1, keepdims=0> (p)",
    "sigmoid": "s = Gemm <transB=1> (g, w4) y = Sigmoid (s)",
    "one_sigmoid": "s = Gemm <transB=1> (g, w1) y = Sigmoid (s)",
    "shares": "s = Gemm <transB=1> (g, w4) e = Exp (s) t = ReduceSum <keepdims=1> (e, axes) y = Div (e, t)",
    "boxes_and_scores": "n = Gemm <transB=1> (g, w4) k = Mul (n, big) s = Gemm <transB=1> (g, w1) "
    "p = Sigmoid (s) y = Concat <axis=1> (k, p)",
    "class_and_number": "y = Gemm <transB=1> (g, w4) z = Gemm <transB=1> (g, w1)",
}


def network(head: str) -> ir.Model:
    """Two hidden layers with random weights and a head."""
    rng = np.random.default_rng(1)
    sizes = {"a": (HIDDEN, FEATURES), "b": (HIDDEN, HIDDEN), "w4": (4, HIDDEN), "w1": (1, HIDDEN)}
    constants = {k: (rng.normal(size=s) * (2 / s[1]) ** 0.5).astype(np.float32) for k, s in sizes.items()}
    constants |= {"axes": np.array([1]), "big": np.array([300.0] * 4, np.float32)}
    body = "c = Gemm <transB=1> (x, a) f = Relu (c) d = Gemm <transB=1> (f, b) g = Relu (d) "
    words = set(re.findall(r"\w+", body + HEADS[head]))
    used = {name: array for name, array in constants.items() if name in words}
    outputs = ("y", "z") if head == "class_and_number" else ("y",)
    proto = Example(body + HEADS[head], {"x": (1, FEATURES)}, constants=used, outputs=outputs).model()
    if "ArgMax" in words:
        proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return load(proto).model


def outputs_of(model: ir.Model, x: np.ndarray = X) -> list[np.ndarray]:
    with torch.no_grad():
        return [y.numpy() for y in TorchModel(model, logits=True).eval()(torch.from_numpy(x))]


def data_of(labels: np.ndarray | None = None, count: int = 1000) -> TrainData:
    return TrainData.from_arrays([X[:count]], None if labels is None else labels[:count])


def _compared(kind: OutputKind, y: np.ndarray) -> np.ndarray:
    """Probabilities in place of logits, which may all be higher without meaning anything."""
    return torch.from_numpy(y).softmax(1).numpy() if kind.form == "logits" else y


def distances(model: ir.Model, reference: ir.Model) -> list[float]:
    """Squared error of each position of each output over its variance, on samples that trained nothing."""
    kinds = output_kinds(reference, data_of())
    found, wanted = ([_compared(k, y) for k, y in zip(kinds, outputs_of(m, X[1000:]))] for m in (model, reference))
    rows = zip(found, wanted, strict=True)
    return [float(d) for a, b in rows for d in np.atleast_1d(((a - b) ** 2).mean(0) / b.var(0))]


FORMS = {
    "numbers": "numbers",
    "one_number": "numbers",
    "softmax": "logits",
    "log_softmax": "logits",
    "arg_max": "logits",
    "arg_max_of_softmax": "logits",
    "sigmoid": "probabilities",
    "one_sigmoid": "probabilities",
    "shares": "shares",
    "boxes_and_scores": "numbers",
    "class_and_number": "numbers",
}


@pytest.mark.parametrize("head", HEADS)
def test_every_output_is_learned_without_labels(head):
    """Pruned to a fifth without training, each output is far off; training without labels brings each back."""
    model = network(head)
    kinds = output_kinds(model, data_of())
    assert {kind.form for kind in kinds} == {FORMS[head]}
    settings = Prune(sparsity=0.6)
    loss = DistillationLoss(TorchModel(model, logits=True), Distill(), kinds)
    training = Train(epochs=20, optimizer="adam", lr=0.01, batch=64)
    before = prune_weights(model, settings)
    after = prune_weights(model, settings, data=data_of(), training=training, loss=loss)
    history = after.histories[0]
    assert all(e.loss > 0 for e in history.epochs)
    assert set(history.epochs[0].losses) == ({"y", "z"} if head == "class_and_number" else set())
    for was, now in zip(distances(before.model, model), distances(after.model, model), strict=True):
        assert now < 0.6 * was and now < 0.15


def test_errors_are_relative_to_what_varies():
    """1 for an output that knows the mean of each position alone, whatever the unit and the offset."""
    for head in ("numbers", "one_number", "sigmoid", "boxes_and_scores"):
        model = network(head)
        (values,) = outputs_of(model)
        (kind,) = output_kinds(model, data_of(count=SAMPLES))
        target = torch.from_numpy(values[:1024])
        mean = target.mean(0, keepdim=True).expand_as(target)
        assert imitation(kind, mean, target, 4.0).item() == pytest.approx(1.0, rel=1e-3)
    assert kind.spread.shape == (1, 5) and kind.spread[0, 0] > 1e5 * kind.spread[0, 4]


LABELLED = {
    # name: (head, labels from the outputs of the model, the loss by torch)
    "classes": ("numbers", lambda y: y.argmax(1), lambda y, t: F.cross_entropy(y, t)),
    "classes behind softmax": ("softmax", lambda y: y.argmax(1), lambda y, t: F.cross_entropy(y, t)),
    "column of classes": ("softmax", lambda y: y.argmax(1)[:, None], lambda y, t: F.cross_entropy(y, t[:, 0])),
    "one-hot": ("softmax", lambda y: np.eye(4, dtype=np.float32)[y.argmax(1)], lambda y, t: F.cross_entropy(y, t)),
    "one-hot integers": (
        "numbers",
        lambda y: np.eye(4, dtype=int)[y.argmax(1)],
        lambda y, t: F.cross_entropy(y, t.float()),
    ),
    "probabilities": ("softmax", lambda y: np.full((len(y), 4), 0.25, np.float32), lambda y, t: F.cross_entropy(y, t)),
    "log-probabilities": ("log_softmax", lambda y: y * 0, lambda y, t: F.mse_loss(y.log_softmax(1), t)),
    "argmax": ("arg_max", lambda y: y.argmax(1), lambda y, t: F.cross_entropy(y, t)),
    "shares": ("shares", lambda y: y.argmax(1), lambda y, t: F.nll_loss((y / y.sum(1, keepdim=True)).log(), t)),
    "integers as numbers": ("one_number", lambda y: np.rint(10 * y[:, 0]).astype(int), None),
    "numbers": ("numbers", lambda y: y + 1, None),
    "0 and 1 for one probability": ("one_sigmoid", lambda y: (y[:, 0] > 0.5) * 1, F.binary_cross_entropy),
    "0. and 1. for one probability": ("one_sigmoid", lambda y: (y > 0.5).astype(np.float32), F.binary_cross_entropy),
    "0 and 1 for one logit": ("one_number", lambda y: (y > 0) * 1, F.binary_cross_entropy_with_logits),
    "0 and 1 for each of several": ("sigmoid", lambda y: (y > 0.5) * 1, F.binary_cross_entropy),
    "0 and 1 for each of several logits": ("numbers", lambda y: (y > 0) * 1, F.binary_cross_entropy_with_logits),
    "one class of several probabilities": (
        "sigmoid",
        lambda y: y.argmax(1),
        lambda y, t: F.binary_cross_entropy(y, F.one_hot(t, 4).float()),
    ),
    "numbers for probabilities": ("sigmoid", lambda y: y * 0.5, None),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_labels_say_which_loss(name):
    head, make, expected = LABELLED[name]
    model = network(head)
    (values,) = outputs_of(model)
    labels = make(values)
    data = data_of(labels)
    (kind,) = output_kinds(model, data)
    batch = data.batch(np.arange(64))
    output = torch.from_numpy(values[:64]) * 0.9
    found = label_loss(kind, output, batch.labels)
    if expected is None:  # numbers: squared error over the variance of the model's own
        wanted = ((output - batch.labels.reshape(output.shape)) ** 2).mean() / kind.spread
        spread = np.var(values[:1000], axis=0).mean()
        assert kind.spread.item() == pytest.approx(spread, rel=1e-5)
    else:
        target = batch.labels.reshape(output.shape).float() if expected in BINARY else batch.labels
        wanted = expected(output, target)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


BINARY = (F.binary_cross_entropy, F.binary_cross_entropy_with_logits)


def test_a_number_trained_towards_0_and_1_stays_one():
    """Its answers are right above 0.5, not above 0, so it is no logit."""
    model = network("one_number")
    (values,) = outputs_of(model)
    weight = next(v for v in model.graph.initializers.values() if v.shape == (1, HIDDEN))
    weight.const_value = ir.tensor(weight.const_value.numpy() / values.std(), name=weight.name)
    (values,) = outputs_of(model)
    (kind,) = output_kinds(model, data_of((values > 0.5) * 1))
    assert kind.task == "mse"
    (kind,) = output_kinds(model, data_of((values > 0) * 1))
    assert kind.task == "binary-cross-entropy"


def test_classes_along_other_axes():
    """Segmentation as ONNX and as Keras have it, with labels that are void in places."""
    for transposed in (False, True):
        end = "t = Conv (x, w) y = Transpose <perm=[0, 2, 3, 1]> (t)" if transposed else "y = Conv (x, w)"
        model = load(Example(end, {"x": (1, 2, 6, 5)}, {"w": (3, 2, 1, 1)}).model()).model
        x = np.random.default_rng(0).normal(size=(40, 2, 6, 5)).astype(np.float32)
        (values,) = outputs_of(model, x)
        axis = 3 if transposed else 1
        labels = values.argmax(axis)
        labels[:, 0] = 255
        data = TrainData.from_arrays([x], labels)
        (kind,) = output_kinds(model, data)
        assert (kind.form, kind.axis, kind.task) == ("logits", axis, "cross-entropy")
        scores = torch.from_numpy(np.moveaxis(values, axis, 1))
        expected = F.cross_entropy(scores[:, :, 1:], torch.from_numpy(labels[:, 1:]))
        torch.testing.assert_close(label_loss(kind, torch.from_numpy(values), torch.from_numpy(labels)), expected)
        near = imitation(kind, torch.from_numpy(values) * 0.5, torch.from_numpy(values), 2.0)
        torch.testing.assert_close(near, softened(scores * 0.5, scores, 2.0))


def test_losses_that_are_asked_for():
    model, seen = network("numbers"), []
    (values,) = outputs_of(model)
    assert output_kinds(model, data_of(), "cross-entropy")[0].form == "logits"
    assert output_kinds(model, data_of(), classes={"y"})[0].form == "logits"
    assert output_kinds(model, data_of(values), classes={"y"})[0].task == "mse"
    assert output_kinds(model, data_of(np.eye(4)[values.argmax(1)]), "mse")[0].task == "mse"
    one = network("one_number")
    assert output_kinds(one, data_of((outputs_of(one)[0] > 0) * 1), "cross-entropy")[0].task == "binary-cross-entropy"

    def mine(outputs, labels, batch):
        seen.append(labels)
        return outputs[0].square().mean()

    batch = data_of().batch(np.arange(16))
    output = torch.from_numpy(values[:16])
    teacher = TorchModel(model, logits=True)
    loss = DistillationLoss(teacher, Distill(alpha=0.25), output_kinds(model, data_of()), task=mine)
    assert loss((output,), None, batch).item() == pytest.approx(0.75 * float(output.square().mean()), rel=1e-5)
    assert seen == [None]
    assert {"cross-entropy", "mse"} <= set(LOSSES)


def test_outputs_without_labels_are_imitated():
    """Labels of the second output alone, by its name; the first is imitated with its whole weight."""
    model = network("class_and_number")
    values = outputs_of(model)
    data = TrainData.from_arrays([X], None)
    labels = {"z": np.rint(values[1][:, 0] * 5).astype(np.int64)}
    data = TrainData(data.columns, data.prepare, data.places, None, labels)
    first, second = output_kinds(model, data)
    assert (first.task, second.task) == (None, "mse")
    batch = data.batch(np.arange(32))
    outputs = [torch.from_numpy(y[:32]) * 0.8 for y in values]
    loss = DistillationLoss(TorchModel(model, logits=True), Distill(alpha=0.0), (first, second))
    parts = loss.parts(outputs, batch.labels, batch)
    target = torch.from_numpy(values[0][:32])
    torch.testing.assert_close(parts["y"], imitation(first, outputs[0], target, 4.0) / 2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts["z"], label_loss(second, outputs[1], batch.output_labels["z"]) / 2)
    torch.testing.assert_close(loss(outputs, None, batch), parts["y"] + parts["z"])


ZERO = {"zero": np.zeros((1, 8), np.float32)}


def test_an_output_that_never_changes_has_a_finite_error():
    constants = {**ZERO, "c": np.full((1, 8), 5.0, np.float32)}
    model = load(Example("z = Mul (x, zero) y = Add (z, c)", {"x": (1, 8)}, constants=constants).model()).model
    (kind,) = output_kinds(model, data_of())
    assert float(kind.spread) == pytest.approx(25)


@pytest.mark.parametrize(
    "head, labels, expected",
    [
        ("numbers", np.zeros((SAMPLES, 3), np.float32), r"'y': expected numbers of shape \[4\]; found float32 \[3\]"),
        ("numbers", np.full(SAMPLES, 4), r"'y': expected 0 to 3, as the output has 4 classes; found 4 to 4"),
        ("softmax", np.zeros(SAMPLES, np.float32), r"output 'y': expected"),
        ("numbers", np.zeros((SAMPLES, 2), int), r"one integer class for each position of \[4\]; found int64 \[2\]"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(head, labels, expected):
    with pytest.raises(InputError, match=expected):
        output_kinds(network(head), data_of(labels))


def test_a_model_that_nothing_can_be_learned_from():
    proto = Example("c = Greater (x, zero) y = Cast <to=7> (c)", {"x": (1, 8)}, constants=ZERO).model()
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model = load(proto).model
    with pytest.raises(InputError, match=r"no output of the model can be trained.*'y' \(INT64\)"):
        output_kinds(model, data_of())


def test_what_labels_alone_say():
    """For criteria: integers of a regression, and labels of an output behind the first."""
    one = network("one_number")
    (values,) = outputs_of(one)
    data = data_of(np.rint(values[:, 0] * 5).astype(int))
    batch, (kind,) = data.batch(np.arange(16)), output_kinds(one, data)
    output = torch.from_numpy(values[:16])
    found = task_loss(one, Train(), data)((output,), batch.labels, batch)
    torch.testing.assert_close(found, ((output[:, 0] - batch.labels) ** 2).mean() / kind.spread)
    assert task_loss(one, Train(), data_of()) is None
    two = network("class_and_number")
    data = replace(data_of(), output_labels={"z": values[:1000]})
    batch = data.batch(np.arange(16))
    zero = [torch.zeros(16, 4), torch.from_numpy(values[:16]) * 0]
    found = task_loss(two, Train(), data)(zero, None, batch)
    torch.testing.assert_close(found, (batch.output_labels["z"] ** 2).mean() / output_kinds(two, data)[1].spread)
