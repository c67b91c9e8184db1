"""Students derived from a teacher have the shapes they should, and learn from it, with and without labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from edgecompress.analysis.statistics import statistics
from edgecompress.compress.distill.depth import removable_blocks
from edgecompress.compress.distill.distillation import distill
from edgecompress.compress.distill.distillation_loss import DistillationLoss, likeness
from edgecompress.compress.distill.student import derive, factorised, separable, shallower
from edgecompress.compress.distill.width import narrowed
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.metrics import top1
from edgecompress.ingest import fold_batchnorm, load
from edgecompress.recipe import Distill, Train
from edgecompress.train import TrainData
from edgecompress.train.losses import softened
from edgecompress.train.module.torch_model import TorchModel
from edgecompress.train.output_kinds import output_kinds
from networks import example
from test_torch_bridge import assert_close, run_onnx
from test_train import SAMPLE, digits  # noqa: F401 (a fixture)

torch.set_num_threads(1)


def layers(model: ir.Model) -> list[tuple[int, ...]]:
    return [tuple(n.inputs[1].shape) for n in model.graph if n.op_type in ("Conv", "Gemm")]


def noise(name: str, samples: int = 32) -> TrainData:
    """Random inputs without labels for a network of `networks`."""
    return TrainData.from_arrays(list(example(name, samples).values()), None)


def runs(model: ir.Model, name: str) -> list[np.ndarray]:
    folded = fold_batchnorm(model)
    inputs = dict(zip((v.name for v in folded.graph.inputs), example(name, 2).values()))
    outputs = run_onnx(folded, inputs)
    with torch.no_grad():
        assert_close(TorchModel(folded).eval()(*map(torch.from_numpy, inputs.values())), outputs)
    return outputs


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "transformer_norm_first"])
def test_narrowed(name, exported):
    teacher = load(exported(name)).model
    student = narrowed(teacher, 0.5, noise(name), align=2)
    before, after = layers(teacher), layers(student)
    assert len(before) == len(after) and all(a[0] >= b[0] for a, b in zip(before, after))
    if name != "transformer_norm_first":
        assert all(b[0] == max(1, round(a[0] / 4)) * 2 for a, b in zip(before[:-1], after[:-1]))
    assert statistics(student).macs < 0.45 * statistics(teacher).macs
    for ours, theirs in zip(runs(student, name), runs(teacher, name), strict=True):
        assert ours.shape == theirs.shape and np.isfinite(ours).all()
    assert layers(teacher) == before


def test_blocks_go(exported):
    teacher = load(exported("transformer_norm_first")).model
    blocks, data = removable_blocks(teacher.graph), noise("transformer_norm_first")
    assert len(blocks) >= 2 and all(a.shape == b.shape for a, b in blocks)
    counts = [len(shallower(teacher, share, data).graph) for share in (1.0, 0.5, 0.0)]
    assert counts[0] == len(teacher.graph) and counts[0] > counts[1] > counts[2]
    assert [y.shape for y in runs(shallower(teacher, 0.0, data), "transformer_norm_first")] == [
        y.shape for y in runs(teacher, "transformer_norm_first")
    ]
    with pytest.raises(UnsupportedModelError, match="no block that can be removed"):
        shallower(load(exported("flatten_to_linear")).model, 0.5, data)


def test_a_block_left_out_is_what_comes_before(exported):
    """With the last layer of a residual branch at zero, and its input not negative, the block changes nothing."""
    teacher = load(exported("residual")).model
    (first, last), *_ = removable_blocks(teacher.graph)
    add = last.producer().inputs[0].producer()
    branch = next(v.producer() for v in add.inputs if v is not first)
    for i in (1, 2):
        branch.inputs[i].const_value = ir.tensor(np.zeros(branch.inputs[i].shape.numpy(), np.float32))
    for a, b in zip(
        runs(shallower(teacher, 0.0, noise("residual")), "residual"), runs(teacher, "residual"), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_separable(exported):
    teacher = load(exported("residual")).model
    student = separable(teacher)
    for weight, depthwise, pointwise in [(w, (w[1], 1, 3, 3), (w[0], w[1], 1, 1)) for w in layers(teacher)[1:3]]:
        assert weight[2:] == (3, 3) and depthwise in layers(student) and pointwise in layers(student)
    assert statistics(student).macs < 0.4 * statistics(teacher).macs
    assert [y.shape for y in runs(student, "residual")] == [y.shape for y in runs(teacher, "residual")]


def test_factorised_is_the_nearest(exported):
    """Weights that are a product come back; of others, alternating least squares from there finds nothing nearer."""
    rng = np.random.default_rng(0)
    spatial, mixing = rng.normal(size=(3, 1, 3, 3)), rng.normal(size=(5, 3, 1, 1))
    weight = spatial[:, 0] * mixing
    a, b = factorised(weight)
    np.testing.assert_allclose(a[:, 0] * b, weight, atol=1e-5)
    weight = rng.normal(size=(5, 3, 3, 3))
    a, b = factorised(weight)
    for i in range(3):
        left, right = b[:, i, 0, 0], a[i].ravel()
        matrix = weight[:, i].reshape(5, 9)
        error = np.square(matrix - np.outer(left, right)).sum()
        for _ in range(20):
            right = left @ matrix / (left @ left)
            left = matrix @ right / (right @ right)
        assert error == pytest.approx(np.square(matrix - np.outer(left, right)).sum(), rel=1e-5)


@pytest.mark.parametrize("kind", [{"width": 0.6}, {"depth": 0}, {"separable": True}])
def test_students_start_from_the_teacher(kind, digits):  # noqa: F811
    """Before any training they are better than chance, and the same every time."""
    teacher, data, test = digits
    unlabelled = replace(data, labels=None)
    a, b = (derive(teacher, Distill(**kind), unlabelled, 1) for _ in range(2))
    for name, value in a.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), b.graph.initializers[name].const_value.numpy())
    assert statistics(a).macs < 0.9 * statistics(teacher).macs
    assert accuracy(a, test) > 30
    convolutions = sum(n.op_type == "Conv" for n in a.graph)
    assert sum(n.op_type == "BatchNormalization" for n in a.graph) == convolutions > 0


def test_softened_logits_are_hintons():
    """T^2 times the cross entropy of both, less the teacher's entropy; and its gradient's limit for large T."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    expected = 9 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(softened(student, teacher, 3.0), expected.float())
    (gradient,) = torch.autograd.grad(softened(student, teacher, 1000.0), student)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(gradient, centred.detach() / 5 / 6, rtol=1e-2, atol=1e-4)  # their equation 4
    image = softened(student.T.reshape(1, 5, 2, 3), teacher.T.reshape(1, 5, 2, 3), 3.0)
    torch.testing.assert_close(image, expected.float())


def test_loss_is_the_sum_of_its_parts(digits):  # noqa: F811
    model, data, _ = digits
    teacher = TorchModel(model, logits=True).eval()
    batch = data.batch(np.arange(8))
    own = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    theirs = teacher(*batch.inputs)[0].detach()

    loss = DistillationLoss(teacher, Distill(temperature=2.0, alpha=0.3), output_kinds(model, data))
    expected = 0.3 * softened(own, theirs, 2.0) + 0.7 * F.cross_entropy(own, batch.labels)
    torch.testing.assert_close(loss((own,), batch.labels, batch), expected)
    torch.testing.assert_close(loss((own,), None, batch), softened(own, theirs, 2.0))
    assert likeness(torch.zeros(3, 2), torch.ones(3, 2)) == 1


def accuracy(model: ir.Model, data: TrainData) -> float:
    batch = data.batch(np.arange(len(data)))
    with torch.no_grad():
        return top1([TorchModel(model).eval()(*batch.inputs)[0].numpy()], data.labels)


def test_student_learns_digits_without_labels(digits):  # noqa: F811
    """Half as wide; the teacher alone, logits and features, tells it what is what."""
    model, data, test = digits
    unlabelled = replace(data, labels=None)
    settings = Distill(width=0.5, features="auto", feature_weight=0.3)
    result = distill(model, unlabelled, settings, Train(epochs=10, batch=64, lr=0.05, augment="shift"))
    assert accuracy(result.model, test) > 85 and accuracy(model, test) > 95
    assert {n.op_type for n in result.model.graph} <= {"Conv", "Relu", "Add", "MaxPool", "Reshape", "Gemm"}
    assert "of the teacher's" in result.notes[0] and "imitates" in result.notes[1]
    assert result.history.stage == "distillation"


def test_student_of_its_own(digits, tmp_path, exported):  # noqa: F811
    """A student from a file starts with the weights that it has."""
    model, data, test = digits
    training = Train(epochs=1, batch=64, lr=1e-6, warmup=0)
    result = distill(model, data, Distill(student=str(SAMPLE / "digits.onnx")), training)
    assert accuracy(result.model, test) == accuracy(model, test)
    with pytest.raises(InputError, match=r"teacher's inputs are \[\[1, 1, 8, 8\]\], the student's"):
        distill(model, data, Distill(student=str(exported("residual"))), training)
    for features, message in (
        ([("nothing", "logits")], "the teacher has no value 'nothing'"),
        ([("logits", "/nothing")], "the student has no value '/nothing'"),
    ):
        with pytest.raises(InputError, match=message):
            distill(model, data, Distill(width=0.5, features=features), training)
