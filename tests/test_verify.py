"""Metrics against scikit-learn and plain arithmetic; verification of artifacts that are right and wrong."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from sklearn.metrics import accuracy_score

from edgecompress.emit.onnx import emit as emit_onnx
from edgecompress.emit.tflite import emit as emit_tflite
from edgecompress.errors import InputError
from edgecompress.evaluate import metrics
from edgecompress.evaluate import verify as module
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.evaluate.interpreters import OnnxRuntime, installed_tflite_interpreters
from edgecompress.evaluate.verify import REFERENCE_SAMPLES, reference, run_dataset, verify
from edgecompress.recipe import Preprocess
from test_interpreters import parse

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
X = RNG.normal(size=(300, 6)).astype(np.float32)
SCORES = X @ WEIGHT.T + BIAS
Y = np.where(RNG.random(300) < 0.8, SCORES.argmax(axis=1), 0)


def classifier(weight: np.ndarray = WEIGHT) -> ir.Model:
    return parse("(float[1, 6] x) => (float[1, 4] y) { y = Gemm<transB = 1>(x, w, b) }", w=weight, b=BIAS)


def data(model: ir.Model, labels: np.ndarray | None = Y) -> Dataset:
    return load_data(X if labels is None else (X, labels), model.graph.inputs, Preprocess())


# metrics ----------------------------------------------------------------------------------------------


def test_top1_is_accuracy():
    assert metrics.top1([SCORES], Y) == pytest.approx(100 * accuracy_score(Y, SCORES.argmax(axis=1)))
    assert metrics.top1([SCORES], Y[:, None]) == metrics.top1([SCORES], Y)
    classes = RNG.integers(0, 4, (300, 5, 5))
    segmentation = np.moveaxis(np.eye(4)[classes], -1, 1)
    assert metrics.top1([segmentation], classes) == 100
    assert metrics.top1([classes], classes) == 100  # a model that ends in ArgMax


@pytest.mark.parametrize("labels", [Y[:-1], Y * 1.0, np.ones((300, 4), int)])
def test_top1_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(InputError, match=r"top1 needs an integer class .*another metric in the recipe"):
        metrics.top1([SCORES], labels)


def test_snr_of_known_noise():
    signal = RNG.normal(size=(1000, 1200))
    noise = signal + 0.01 * RNG.normal(size=signal.shape)
    assert metrics.snr_db(signal, noise) == pytest.approx(40, abs=0.1)
    by_definition = 10 * np.log10(np.sum(signal**2) / np.sum((signal - noise) ** 2))
    assert metrics.snr_db(signal, noise) == pytest.approx(by_definition)
    assert metrics.snr_db(signal, signal) == np.inf
    assert metrics.snr_db(0 * signal, noise) == -np.inf
    assert metrics.max_abs_error(np.array([1.0, -5.0]), np.array([2.0, -8.0])) == 3


def test_agreement():
    other = SCORES.copy()
    other[:30] = np.roll(other[:30], 1, axis=1)
    assert metrics.same_classes(SCORES, other).percent == pytest.approx(90)


def test_metric_of_the_user(tmp_path):
    path = tmp_path / "m.py"
    path.write_text("def worst(outputs, labels):\n    return outputs[0][:, 0].min() + labels.sum()\n")
    metric = metrics.load_metric(f"{path}:worst")
    assert metric([SCORES], Y) == pytest.approx(SCORES[:, 0].min() + Y.sum())
    path.write_text("def nothing(outputs, labels):\n    return None\n")
    with pytest.raises(InputError, match="nothing returned None; expected a number"):
        metrics.load_metric(f"{path}:nothing")([SCORES], Y)
    path.write_text("def wrong(outputs):\n    return 1\n")
    with pytest.raises(InputError, match="wrong failed with TypeError"):
        metrics.load_metric(f"{path}:wrong")([SCORES], Y)
    path.write_text("def leaves(outputs, labels):\n    raise SystemExit(7)\n")
    with pytest.raises(InputError, match="leaves failed with SystemExit"):
        metrics.load_metric(f"{path}:leaves")([SCORES], Y)
    with pytest.raises(
        InputError, match=r"metric 'top7': expected 'auto', 'top1', 'top5', .*'map50_corners' or 'file.py:function'"
    ):
        metrics.load_metric("top7")


# verification -----------------------------------------------------------------------------------------


def test_the_float_reference_is_the_model():
    model, done = classifier(), []
    found = reference(model, data(model), progress=done.append)
    np.testing.assert_allclose(found.outputs[0], SCORES, rtol=1e-4, atol=1e-5)
    assert found.score == pytest.approx(100 * np.mean(SCORES.argmax(axis=1) == Y)) and sum(done) == 300


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_right_artifact(format):
    model = classifier()
    emitted = emit_tflite(model)
    found = reference(model, data(model))
    checks = verify(emit_onnx(model) if format == "onnx" else emitted.data, format, found, emitted)
    names = ["ONNX Runtime"] if format == "onnx" else ["LiteRT", "LiteRT reference"]
    names += ["tflite-runtime"] * (format == "tflite" and len(installed_tflite_interpreters()) == 2)
    assert [check.interpreter for check in checks] == names
    for check in checks:
        count = REFERENCE_SAMPLES if check.interpreter == "LiteRT reference" else 300
        expected = 100 * np.mean(SCORES[:count].argmax(axis=1) == Y[:count])
        assert check.samples == count and check.metric == "top1" and check.error is None
        assert check.value == pytest.approx(expected) and check.reference_value == pytest.approx(expected)
        assert check.agreement_percent == 100 and check.snr_db > 80 and check.drop == pytest.approx(0)


def test_a_large_model_runs_fewer_samples_in_slow_interpreters(monkeypatch: pytest.MonkeyPatch):
    """The first interpreter is measured on the same few, here of an artifact whose weights are off."""
    monkeypatch.setattr(module, "REFERENCE_MACS", 8 * WEIGHT.size + 4)
    model, off = classifier(), (1.01 * WEIGHT).astype(np.float32)
    emitted = emit_tflite(classifier(off))
    full, few = verify(emitted.data, "tflite", reference(model, data(model)), emitted)[:2]
    assert (full.samples, few.samples) == (300, 8) and full.beside == ()
    assert few.beside[0].snr_db == pytest.approx(metrics.snr_db(SCORES[:8], X[:8] @ off.T + BIAS), abs=0.01)


def test_a_wrong_artifact_shows():
    model, wrong = classifier(), classifier(WEIGHT[::-1].copy())
    (check,) = verify(emit_onnx(wrong), "onnx", reference(model, data(model)))
    outputs = X @ WEIGHT[::-1].T + BIAS
    assert check.value == pytest.approx(100 * np.mean(outputs.argmax(axis=1) == Y))
    assert check.drop > 20 and check.agreement_percent < 60
    assert check.snr_db == pytest.approx(metrics.snr_db(SCORES, outputs), abs=0.01)


def test_without_labels_agreement_is_the_metric():
    model = classifier()
    nudged = classifier(WEIGHT + 0.3 * RNG.normal(size=WEIGHT.shape).astype(np.float32))
    found = reference(model, data(model, labels=None))
    (check,) = verify(emit_onnx(nudged), "onnx", found)
    agreed = 100 * np.mean(run_dataset(OnnxRuntime(nudged), found.dataset)[0].argmax(1) == SCORES.argmax(1))
    assert (check.metric, check.reference_value) == ("agreement", 100.0)
    assert 50 < check.value < 100 and check.value == check.agreement_percent == pytest.approx(agreed)


@pytest.mark.parametrize("sample", ["2, 6", "6"])
def test_outputs_that_are_no_scores_are_measured_by_noise_alone(sample):
    model = parse(f"(float[1, {sample}] x) => (float[1, {sample}] y) {{ y = Tanh(x) }}")
    x = X.reshape(150, 2, 6) if sample == "2, 6" else X
    found = reference(model, load_data(x, model.graph.inputs, Preprocess()))
    (check,) = verify(emit_onnx(model), "onnx", found)
    assert (check.value, check.reference_value, check.agreement_percent) == (None, None, None)
    assert check.snr_db > 100 and check.drop is None


def test_an_artifact_that_does_not_load_is_a_check_with_the_error():
    model = classifier()
    found = reference(model, data(model))
    for format in ("onnx", "tflite"):
        for check in verify(b"broken", format, found, emit_tflite(model)):
            assert check.value is None and check.samples == 0
            assert check.error and check.version[0].isdigit()
