"""Weights of few bits: integers and scales by the papers' formulas, their training, and what files hold of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import edgecompress
from edgecompress.compress.cluster import cluster
from edgecompress.compress.quantize.aware import FakeQuantized, moments_in_float
from edgecompress.compress.quantize.fake_few_bits import fake_weight, on_learned_steps
from edgecompress.compress.quantize.gptq import round_weights
from edgecompress.compress.quantize.weight_scales import quantize_weight
from edgecompress.conversion.size_budget import within_budget
from edgecompress.emit import onnx as emit_onnx
from edgecompress.emit import pack as emit_pack
from edgecompress.emit import tflite as emit_tflite
from edgecompress.errors import InputError
from edgecompress.evaluate.file_count import count_file
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime
from edgecompress.graph.annotations import quantization
from edgecompress.graph.few_bits import narrowest
from edgecompress.operators import record_of
from edgecompress.recipe import Cluster, Emit, Quantize, Recipe
from edgecompress.targets import load_target
from edgecompress.train import TrainData
from edgecompress_runtime.codegen.llvm_writer import llvm_program
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.families.table import family_of
from edgecompress_runtime.pack import read_pack
from quantizing import PLAIN, data, network, normal, samples, static

FEW = {"binary": {-1, 1}, "ternary": {-1, 0, 1}, "int4": set(range(-7, 8))}
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def three_layers() -> ir.Model:
    return network(
        """a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, v, b) s = Relu(c)
        y = Conv(s, u, b)""",
        w=normal(16, 3, 3, 3), v=normal(16, 16, 3, 3), u=normal(16, 16, 1, 1, seed=2), b=normal(16),
    )  # fmt: skip


def few(kind: str, **keys: object) -> Quantize:
    return PLAIN.model_copy(update={"weights": kind, **keys})


def by_formula(kind: str, row: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and whole numbers of one channel: XNOR-Net, equations 5 and 6; TWN, equations 3, 5 and 6."""
    if kind == "binary":
        return np.abs(row).mean(), np.where(row >= 0, 1, -1)
    used = [abs(w) for w in row if w != 0]
    threshold = 0.7 * sum(used) / len(used)
    chosen = [abs(w) for w in row if abs(w) > threshold]
    return sum(chosen) / len(chosen), np.array([np.sign(w) if abs(w) > threshold else 0 for w in row])


# formulas ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(seeds, st.sampled_from(["binary", "ternary"]), st.sampled_from([0, 1, None]), st.booleans())
def test_scales_and_whole_numbers_are_the_papers(
    rng: np.random.Generator, kind: str, axis: int | None, pruned: bool
) -> None:
    weight = (rng.normal(size=(4, 3, 5)) * rng.lognormal(0, 2, (4, 3, 1))).astype(np.float32)
    if pruned and kind == "ternary":
        weight[rng.random(weight.shape) < 0.5] = 0
        weight[..., 0] = 1  # no channel is all zeros
    q = quantize_weight(weight, axis, kind=kind)
    stored = q.quantize(weight)
    rows = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    found = stored.reshape(1, -1) if axis is None else np.moveaxis(stored, axis, 0).reshape(len(rows), -1)
    for row, whole, scale in zip(rows, found, q.scale, strict=True):
        expected_scale, expected = by_formula(kind, row.astype(np.float64))
        assert scale == pytest.approx(expected_scale, rel=1e-6)
        np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(q.quantize(q.dequantize(stored)), stored)  # a file that is read again stays


@pytest.mark.parametrize("axis", [0, None])
def test_int4_has_less_error_than_the_whole_range_and_than_lsq_begins_with(axis: int | None) -> None:
    weight = normal(6, 40, seed=3)
    q = quantize_weight(weight, axis, kind="int4")
    rows, scales = (weight, q.scale) if axis == 0 else (weight.reshape(1, -1), q.scale)
    for row, scale in zip(rows, scales, strict=True):
        error = [
            np.square(row - s * np.clip(np.rint(row / s), -7, 7)).sum()
            for s in (scale, np.abs(row).max() / 7, 2 * np.abs(row).mean() / np.sqrt(7))
        ]
        assert error[0] <= min(error[1:])
    assert set(np.unique(q.quantize(weight))) <= FEW["int4"]


@settings(deadline=None, max_examples=20)
@given(seeds, st.sampled_from([0, 1, None]))
def test_a_learned_step_has_the_gradient_of_the_paper(rng: np.random.Generator, axis: int | None) -> None:
    """Equation 3, and 5 for the weight; the factor is that of section 2.2: 1 / sqrt(n Qp)."""
    weight = rng.normal(size=(3, 4, 5)).astype(np.float32)
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = weight.shape[axis]
    step = rng.uniform(0.05, 0.4, shape).astype(np.float32)
    w, s = torch.from_numpy(weight).requires_grad_(), torch.from_numpy(step).requires_grad_()
    grad = rng.normal(size=weight.shape).astype(np.float32)
    on_learned_steps(w, s, 7).backward(torch.from_numpy(grad))
    expected, count = np.zeros(step.shape), weight.size // step.size
    for place in np.ndindex(weight.shape):
        own = tuple(0 if n == 1 else i for i, n in zip(place, step.shape))
        v = float(weight[place]) / float(step[own])
        part = -v + np.rint(v) if -7 < v < 7 else np.sign(v) * 7
        expected[own] += grad[place] * part / np.sqrt(count * 7)
        assert w.grad[place] == pytest.approx(grad[place] if abs(v) < 7 else 0, rel=1e-5)
    np.testing.assert_allclose(s.grad.numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@settings(deadline=None, max_examples=20)
@given(seeds, st.sampled_from(list(FEW)), st.sampled_from([0, 1, None]), st.booleans())
def test_training_sees_what_files_hold(rng: np.random.Generator, kind: str, axis: int | None, pruned: bool) -> None:
    weight = (rng.normal(size=(4, 3, 2, 2)) * rng.lognormal(0, 2, (4, 3, 1, 1))).astype(np.float32)
    mask = rng.random(weight.shape) < 0.5 if pruned and kind != "binary" else np.ones(weight.shape, bool)
    kept, parameter = np.where(mask, weight, 0), torch.from_numpy(weight).requires_grad_()
    q = quantize_weight(kept, axis, kind=kind)
    transform = fake_weight(q, mask)
    found = transform(parameter)
    np.testing.assert_allclose(found.detach(), q.dequantize(q.quantize(kept)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(transform.scale(torch.from_numpy(kept)).detach(), q.scale, rtol=1e-6)
    grad = rng.normal(size=weight.shape).astype(np.float32)
    found.backward(torch.from_numpy(grad))
    if kind != "int4":  # straight through
        np.testing.assert_allclose(parameter.grad.numpy(), grad * mask, rtol=1e-5)
        each = grad * q.dequantize(q.quantize(kept)) / np.sqrt(weight.size / len(q.scale))  # of a logarithm
        expected = each.sum() if axis is None else each.sum(tuple(i for i in range(4) if i != axis))
        size = np.abs(each).max() * weight.size
        np.testing.assert_allclose(transform.log_ratio.grad.numpy(), expected, rtol=1e-4, atol=1e-6 * size)


# which layers -----------------------------------------------------------------------------------------


def kinds(annotated: ir.Model) -> dict[str, str]:
    found = {str(v.name): quantization(v) for v in annotated.graph.initializers.values()}
    return {name: q.kind for name, q in found.items() if q is not None and q.narrow_range}


def test_the_first_and_the_last_layer_stay_int8_unless_they_are_named() -> None:
    model = three_layers()
    assert kinds(static(model, settings=few("binary"))) == {"w": "int8", "v": "binary", "u": "int8"}
    named = few("int8", layer_weights={"y": "ternary"})
    assert kinds(static(model, settings=named)) == {"w": "int8", "v": "int8", "u": "ternary"}
    mixed = few("int4", layer_weights={"c": "int8", "a": "binary"})
    assert kinds(static(model, settings=mixed)) == {"w": "binary", "v": "int8", "u": "int8"}


def test_branches_have_several_first_and_last_layers() -> None:
    model = network(
        """a = Conv(x, w, b) c = Conv(x, v, b) s = Add(a, c) d = Conv(s, u, b) r = Relu(d) e = Conv(r, t, b)
        f = Conv(r, q, b) y = Add(e, f)""",
        **{name: normal(3, 3, 1, 1, seed=i) for i, name in enumerate("wvutq")}, b=normal(3),
    )  # fmt: skip
    found = kinds(static(model, settings=few("ternary")))
    assert [name for name, kind in found.items() if kind == "ternary"] == ["u"] and len(found) == 5


@pytest.mark.parametrize("layers, message", [
    ({"nobody": "binary"}, "quantize.layer_weights: the model has no node or value named 'nobody'"),
    ({"a": "binary", "y": "int4"}, "quantize.layer_weights: these nodes have no int8 weights: 'y'"),
])  # fmt: skip
def test_names_without_weights_are_refused(layers: dict[str, str], message: str) -> None:
    body = "a = Conv(x, w, b) y = MaxPool <kernel_shape = [2, 2]> (a)"
    with pytest.raises(InputError, match=message):
        static(network(body, w=normal(3, 3, 1, 1), b=normal(3)), settings=few("int8", layer_weights=layers))


def test_clusters_leave_weights_of_few_bits_alone() -> None:
    model = three_layers()
    annotated = static(model, settings=few("ternary"))
    found = cluster(annotated, model, None, Cluster(bits=3))
    assert [layer.name for layer in found.layers] == ["node0", "node4"] or len(found.layers) == 2
    np.testing.assert_array_equal(stored(found.model, "v"), stored(annotated, "v"))


def stored(annotated: ir.Model, name: str) -> np.ndarray:
    value = annotated.graph.initializers[name]
    return quantization(value).quantize(value.const_value.numpy())


# files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FEW)
def test_files_hold_and_count_the_whole_numbers(kind: str) -> None:
    model = three_layers()
    annotated = static(model, settings=few(kind))
    macs = {str(node.name): record_of(node).macs(node) for node in annotated.graph}
    packed, lite = emit_pack.emit(annotated), emit_tflite.emit(annotated)
    files = {"pack": packed.data, "tflite": lite.data, "onnx": emit_onnx.emit(annotated)}
    bits = {"pack": {"binary": 1, "ternary": 2, "int4": 4}[kind], "tflite": 8, "onnx": 8}
    for format, file in files.items():
        found = count_file(file, format, macs)
        assert [o.stores for o in found.operations] == ["int8", kind, "int8"], format
        assert found.weight_bytes[kind] == 16 * 16 * 9 * bits[format] // 8
        assert found.encoding == "int8"
    plan = read_pack(packed.data).plan()
    middle = [t.data for t in plan.tensors if t.data is not None and t.data.size == 16 * 16 * 9]
    assert len(middle) == 1 and set(np.unique(middle[0])) <= FEW[kind]
    taken = next(
        len(e.data) for t, e in zip(plan.tensors, read_pack(packed.data).encoded) if t.shape == middle[0].shape
    )
    assert taken <= 16 * 16 * 9 * bits["pack"] / 8 + 32
    arrays = samples(model, 4, seed=9)
    executor, (x,), (y,) = Executor(plan), packed.inputs, packed.outputs
    ours = np.concatenate([y.from_device(executor(x.to_device(row[None]))[0]) for row in arrays["x"]])
    with torch.no_grad():
        trained = FakeQuantized(annotated).module.eval()(torch.from_numpy(arrays["x"]))[0].numpy()
    np.testing.assert_array_equal(trained, ours)
    theirs = LiteRT(lite.data, lite).run(arrays)[0]
    assert np.abs(theirs - ours).max() < 1.01 * quantization(annotated.graph.outputs[0]).scale[0]


def test_the_narrowest_type_is_what_the_numbers_need() -> None:
    rows = {"int8": [[0, 0], [8, 0], [-8, 1]], "int4": [[2, 0], [-7, 7]], "ternary": [[1, 0]], "binary": [[-1, 1]]}
    for kind, arrays in rows.items():
        assert [narrowest(np.array(a, np.int8)) for a in arrays] == [kind] * len(arrays)


@pytest.mark.parametrize("kind", FEW)
def test_firmware_keeps_weights_in_few_bits_in_flash(kind: str) -> None:
    profile, model = load_target("cortex-m4"), three_layers()
    family = family_of(profile.triple, profile.features)
    held = {}
    for each in ("int8", kind):
        program = llvm_program(emit_pack.plan(static(model, settings=few(each))), "net", family)
        held[each] = sum(array.nbytes for array in program.constants.values())
    taken = 16 * 16 * 9 - (held["int8"] - held[kind])
    assert taken <= 16 * 16 * 9 * {"binary": 1, "ternary": 1.7, "int4": 4}[kind] / 8 + 300  # with the table of codes


@pytest.mark.parametrize("kind", FEW)
def test_gptq_keeps_the_type_and_lessens_the_error(kind: str) -> None:
    model = three_layers()
    annotated = static(model, settings=few(kind))
    found = round_weights(model, annotated, data(model), lambda: False)["v"]
    q = quantization(annotated.graph.initializers["v"])
    assert set(np.unique(q.quantize(found.weight))) <= FEW[kind]
    np.testing.assert_allclose(q.dequantize(q.quantize(found.weight)), found.weight)
    x = np.maximum(normal(400, 16 * 9, seed=9), 0)  # unlike its inputs, but with means as these have
    before = model.graph.initializers["v"].const_value.numpy().reshape(16, -1)
    plain = q.dequantize(stored(annotated, "v")).reshape(16, -1)
    errors = [np.square((x - x.mean(0)) @ (w - before).T).sum() for w in (plain, found.weight.reshape(16, -1))]
    assert kind != "int4" or errors[1] < 1.5 * errors[0]


def test_learned_steps_are_in_the_model() -> None:
    annotated = static(three_layers(), settings=few("int4"))
    fake = FakeQuantized(annotated)
    transform = fake.module.weight_transforms["v"]
    with torch.no_grad():
        transform.log_ratio += 0.3
    found = quantization(fake.annotated().graph.initializers["v"])
    np.testing.assert_allclose(
        found.scale, quantization(annotated.graph.initializers["v"]).scale * np.exp(0.3), rtol=1e-5
    )
    assert found.kind == "int4"


@pytest.mark.parametrize("kind", ["binary", "ternary"])
def test_a_normalization_begins_as_in_float_and_is_folded_exactly(kind: str) -> None:
    model = network(
        """a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, v, d) s = Relu(c)
        y = Conv(s, u, e)""",
        w=normal(16, 3, 3, 3), v=normal(16, 16, 3, 3), u=normal(16, 16, 1, 1, seed=2), b=normal(16), d=normal(16),
        e=normal(16),
    )  # fmt: skip
    annotated, arrays = static(model, settings=few(kind)), samples(model, 64, seed=5)
    examples = TrainData.from_arrays(arrays, None)
    fake = FakeQuantized(annotated, moments=moments_in_float(annotated, examples))
    assert set(fake.moments[0]) == {"c"}  # the only layer of few bits
    fake.measure_statistics(examples)
    x = torch.from_numpy(arrays["x"])
    with torch.no_grad():
        normalised = fake.module.train()(x, capture=["c"])[1]["c"].numpy()
    in_float = OnnxRuntime(model, extra_outputs=["c"]).run(arrays)[-1]
    for moment in (np.mean, np.std):
        here, there = (moment(c, axis=(0, 2, 3)) for c in (normalised, in_float))
        np.testing.assert_allclose(here, there, atol=0.01 * in_float.std())
    with torch.no_grad():
        fake.module.value_transforms["c"].log_ratio += torch.from_numpy(normal(16, seed=7)) / 4
        evaluated = fake.module.eval()(x)[0].numpy()
    packed = emit_pack.emit(fake.annotated())
    run, (taken,), (given,) = Executor(read_pack(packed.data).plan()), packed.inputs, packed.outputs
    stored = np.concatenate([given.from_device(run(taken.to_device(row[None]))[0]) for row in arrays["x"]])
    np.testing.assert_array_equal(evaluated, stored)


# conversions ------------------------------------------------------------------------------------------


def test_without_training_gptq_is_tried_and_the_gate_judges(tmp_path: Path) -> None:
    model = three_layers()
    made = edgecompress.convert(
        model, calib=samples(model, 64), formats=["pack"], recipe={"quantize": {"weights": "binary"}},
        output=tmp_path / "out",
    )  # fmt: skip
    report = made.report
    assert report.status == "quality-below-limit"
    assert "weights rounded by GPTQ" in [cure.what for cure in report.cures] and not report.achieved.float_layers
    assert {layer.encoding for layer in report.layers} >= {"int8 per-channel", "binary per-channel"}
    assert next(layer.bits_per_weight for layer in report.layers if "binary" in layer.encoding) == 1.0
    assert report.artifacts[0].weight_bytes_by_type["binary"] == 16 * 16 * 9 // 8
    assert any("2 int8, 1 binary" in stage.note for stage in report.stages)


@pytest.mark.parametrize("quantize", [{"weights": "int4"}, {"layer_weights": {"c": "binary"}}])
def test_few_bits_need_int8_activations(quantize: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"quantize\..* needs int8 activations beside it: give calibration data"):
        edgecompress.convert(three_layers(), formats=["pack"], recipe={"quantize": quantize}, output=tmp_path / "out")


def test_a_limit_on_size_does_not_prune_weights_of_few_bits() -> None:
    recipe = Recipe(quantize=Quantize(weights="binary"), emit=Emit(formats=["pack"], max_size=1000))
    assert within_budget(recipe, 10_000, trains=True).prune.sparsity is None
