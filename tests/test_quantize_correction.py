"""Cross-layer equalization and bias correction: the function is kept, and the error shrinks."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import calibrate, correct_bias, equalize, quantize_static, simulation
from edgecompress.compress.quantize.bias_correction import without_mean_shift
from edgecompress.compress.quantize.cross_layer import equalized, pairs
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import quantization
from edgecompress.graph.fusion import constant
from edgecompress.recipe import Quantize
from quantizing import data, network, normal, parameters, samples, snr_db, value

SPREAD = np.geomspace(0.01, 10, 6).astype(np.float32)
SETTINGS = Quantize(calibration="minmax")


def unbalanced(between: str, second: str = "Conv", **constants) -> ir.Model:
    """Two convolutions whose channels between them differ a thousandfold, to no effect on the function."""
    first = normal(6, 3, 3, 3) * SPREAD.reshape(-1, 1, 1, 1)
    after = normal(6, 1, 3, 3) if "group" in second else normal(4, 6, 1, 1) / SPREAD.reshape(1, -1, 1, 1)
    if "group" in second:
        after = after / SPREAD.reshape(-1, 1, 1, 1)
    bias = normal(6) * SPREAD
    body = f"c = Conv <pads = [1, 1, 1, 1]> (x, w, b) {between} y = {second} (r, v, d)"
    return network(body, w=first, b=bias, v=after, d=normal(len(after)), **constants)


CHAINS = {
    "nothing": dict(between="r = Identity(c)"),
    "relu": dict(between="r = Relu(c)"),
    "leaky": dict(between="r = LeakyRelu(c)"),
    "prelu": dict(between="r = PRelu(c, s)", s=np.abs(normal(6, 1, 1))),
    "pooled": dict(between="a = Relu(c) r = MaxPool <kernel_shape = [2, 2]> (a)"),
    "depthwise": dict(between="r = Relu(c)", second="Conv <group = 6>"),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.parametrize("measured", [False, True])
def test_equalized_model_computes_the_same(chain, measured):
    model = unbalanced(**chain)
    assert len(pairs(model)) == 1
    ranges = {pairs(model)[0].between.name: SPREAD * 3} if measured else None
    changed, arrays = equalized(model, ranges), samples(model, 4)
    exact, found = (OnnxRuntime(m).run(arrays)[0] for m in (model, changed))
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
    w1, w2 = (np.abs(constant(n.inputs[1])) for n in (pairs(changed)[0].first, pairs(changed)[0].second))
    r1 = w1.max(axis=(1, 2, 3))
    r2 = w2.max(axis=(1, 2, 3) if len(w2) == 6 else (0, 2, 3))
    if not measured:  # equation 11: both ranges are sqrt(r1 r2), up to one factor for all channels
        np.testing.assert_allclose(r1 / r2, (r1 / r2).mean(), rtol=0.01)
    before = np.abs(constant(pairs(model)[0].first.inputs[1])).max(axis=(1, 2, 3))
    assert r1.max() / r1.min() < before.max() / before.min() / 20


def test_grouped_convolution_is_equalized_by_group():
    body = "c = Conv(x, w, b) r = Relu(c) y = Conv <group = 2> (r, v, d)"
    model = network(body, w=normal(6, 3, 1, 1), b=normal(6), v=normal(4, 3, 1, 1), d=normal(4))
    changed, arrays = equalized(model), samples(model, 4)
    exact, found = (OnnxRuntime(m).run(arrays)[0] for m in (model, changed))
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
    assert not np.array_equal(constant(changed.graph[0].inputs[1]), constant(model.graph[0].inputs[1]))


def test_what_is_read_twice_or_not_homogeneous_is_left_alone():
    w = dict(w=normal(6, 3, 3, 3), b=normal(6), v=normal(6, 6, 3, 3), d=normal(6))
    pad = "<pads = [1, 1, 1, 1]>"
    bodies = (
        f"c = Conv {pad} (x, w, b) r = Relu(c) e = Conv {pad} (r, v, d) y = Add(e, r)",
        f"c = Conv {pad} (x, w, b) r = Sigmoid(c) y = Conv {pad} (r, v, d)",
        f"c = Conv {pad} (x, w, b) r = Clip(c, low, high) y = Conv {pad} (r, v, d)",
    )
    for body in bodies:
        bounds = dict(low=np.float32(0), high=np.float32(6)) if "Clip" in body else {}
        assert pairs(network(body, **w, **bounds)) == []
    report = equalize(network(bodies[1], **w), data(network(bodies[1], **w)), SETTINGS).report
    assert not report.kept and report.pairs == 0 and "no pair" in str(report)


@pytest.mark.parametrize("per_channel", [True, False])
def test_equalization_helps_an_unbalanced_model_and_says_so(per_channel):
    settings = SETTINGS.model_copy(update={"per_channel": per_channel})
    model = unbalanced(**CHAINS["relu"])
    result = equalize(model, data(model), settings)
    assert result.report.kept and result.report.snr_after > result.report.snr_before + 3
    arrays = samples(model, 16, seed=8)
    exact = OnnxRuntime(model).run(arrays)[0]
    found = []
    for m in (model, result.model):
        annotated = quantize_static(m, calibrate(m, data(m), settings), settings)
        found.append(snr_db(exact, OnnxRuntime(simulation(annotated)).run(arrays)[0]))
    assert found[1] > found[0] + 3
    again = equalize(result.model, data(model), settings)
    assert not again.report.kept and again.model is result.model


# bias correction ---------------------------------------------------------------------------------


def biased(model: ir.Model) -> ir.Model:
    """Annotated with biases that are wrong by some steps: quantization with a large mean error."""
    annotated = quantize_static(model, calibrate(model, data(model), SETTINGS), SETTINGS)
    for name, array in [(n, v.const_value.numpy()) for n, v in annotated.graph.initializers.items()]:
        q = quantization(annotated.graph.initializers[name])
        if q is not None and q.dtype == ir.DataType.INT32:
            shifted = array + 0.3 * np.abs(array).max() * np.sign(normal(len(array), seed=4))
            annotated.graph.initializers[name].const_value = ir.tensor(shifted.astype(np.float32), name=name)
    return annotated


MODELS = {
    "convolutions": dict(
        body="""a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a)
            y = Conv <group = 2, pads = [1, 1, 1, 1]> (r, v, c)""",
        w=normal(4, 3, 3, 3), b=normal(4), v=normal(6, 2, 3, 3), c=normal(6),
    ),
    "matmul": dict(body="m = MatMul(x, w) y = Add(m, b)", w=normal(8, 5), b=normal(5)),
    "mixing samples": dict(
        body="t = Transpose <perm = [1, 0, 2, 3]> (x) m = MatMul(t, w) y = Add(m, b)",
        w=normal(8, 5), b=normal(5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_mean_error_of_every_channel_is_gone(name):
    model = network(**MODELS[name])
    annotated = biased(model)
    corrected, count = without_mean_shift(model, annotated, samples(model))
    assert count == (2 if name == "convolutions" else 1)
    axis = 1 if name == "convolutions" else -1
    exact = OnnxRuntime(model).run(samples(model))[0]

    def mean_error(m: ir.Model) -> np.ndarray:
        error = np.moveaxis(OnnxRuntime(simulation(m)).run(samples(model))[0] - exact, axis, 0)
        return np.abs(error.reshape(len(error), -1).mean(axis=1)).max()

    step = parameters(annotated, "y")[0]
    assert mean_error(annotated) > 1.5 * step
    assert mean_error(corrected) < 0.25 * step


def test_bias_correction_is_kept_where_it_helps_only():
    model = network(**MODELS["convolutions"])
    calibration = calibrate(model, data(model), SETTINGS)
    annotated = biased(model)
    corrected, report = correct_bias(model, annotated, calibration)
    assert report.kept and report.layers == 2 and report.snr_after > report.snr_before + 5
    arrays = samples(model, 16, seed=6)
    exact = OnnxRuntime(model).run(arrays)[0]
    found = [snr_db(exact, OnnxRuntime(simulation(m)).run(arrays)[0]) for m in (annotated, corrected)]
    assert found[1] > found[0] + 5
    again, second = correct_bias(model, corrected, calibration)
    assert not second.kept and again is corrected
    plain = network("y = Relu(x)")
    nothing = quantize_static(plain, calibrate(plain, data(plain), SETTINGS), SETTINGS)
    assert correct_bias(plain, nothing, calibrate(plain, data(plain), SETTINGS))[1].layers == 0
    assert value(plain, "y").meta == {}


@pytest.mark.parametrize(
    ("gain", "kept"), [(-1.0, False), (0.0, False), (0.05, False), (0.1, False), (0.2, True), (3.0, True)]
)
def test_a_gain_below_a_tenth_of_a_decibel_is_chance(gain: float, kept: bool, monkeypatch: pytest.MonkeyPatch):
    """Both steps ask how near the results are without and with them; what differs less than that is left as it was."""

    def module(name: str) -> ModuleType:  # the package exports a function of the name of one of them
        return importlib.import_module(f"edgecompress.compress.quantize.{name}")

    model = unbalanced(**CHAINS["relu"])
    calibration = calibrate(model, data(model), SETTINGS)
    annotated = quantize_static(model, calibration, SETTINGS)
    ratios = iter([0.0, gain])
    monkeypatch.setattr(module("bias_correction"), "output_snr_db", lambda *_: next(ratios))
    corrected, report = correct_bias(model, annotated, calibration)
    assert report.kept == kept == (corrected is not annotated)
    measured = iter([0.0, gain, gain])
    monkeypatch.setattr(module("equalize"), "output_snr_db", lambda *_: next(measured))
    result = equalize(model, data(model), SETTINGS)
    assert result.report.kept == kept == (result.model is not model)
