"""What is said of data and labels that can't be right, and that nothing is said of good ones."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import quantize
from edgecompress.conversion.data import open_data
from edgecompress.conversion.label_checks import check_labels
from edgecompress.errors import InputError
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.verify import reference
from edgecompress.graph.annotations import Quantization, quantization, set_given_quantization
from edgecompress.recipe import Preprocess, Recipe
from edgecompress.targets import load_target
from test_interpreters import parse

RNG = np.random.default_rng(0)
CLASSES, WIDTH, N = 5, 12, 120
LEVELS = np.arange(1, CLASSES + 1)[:, None] / CLASSES
CENTRES = (LEVELS * RNG.uniform(0.5, 1, (1, WIDTH))).astype(np.float32)
CENTRES[:, 0], CENTRES[:, 1] = 0, 1
Y = np.arange(N) % CLASSES
X = np.clip(CENTRES[Y] + RNG.normal(0, 0.05, (N, WIDTH)), 0, 1).astype(np.float32)
X[:, 0], X[:, 1] = 0, 1  # so that every part of it has the same extremes
X[:, 2] += np.linspace(0, 0.001, N, dtype=np.float32)


def nearest_centre() -> ir.Model:
    """Scores are 2 x . c - c . c, largest for the nearest centre. It knows values from 0 to 1 only."""
    bias = -(CENTRES**2).sum(axis=1)
    text = f"(float[1, {WIDTH}] x) => (float[1, {CLASSES}] y) {{ y = Gemm<transB = 1>(x, w, b) }}"
    return parse(text, w=2 * CENTRES, b=bias)


def images(scale: float) -> ir.Model:
    """A convolution whose outputs are about 1 in size for inputs of size 1 / scale."""
    text = "(float[1, 1, 8, 8] x) => (float[1, 3, 6, 6] y) { h = Conv(x, w, b) y = Relu(h) }"
    return parse(text, w=(scale * RNG.normal(size=(3, 1, 3, 3))).astype(np.float32), b=np.ones(3, np.float32))


def data_notes(calibration: object, evaluation: object = None, model: ir.Model | None = None) -> list[str]:
    recipe = Recipe()
    recipe.quantize.activations = "int8"
    opened = open_data(model or nearest_centre(), calibration, evaluation, recipe, load_target("android"))
    return [note for note in opened.notes if "artifacts were checked" not in note]


def label_notes(x: np.ndarray, labels: np.ndarray | None, model: ir.Model | None = None) -> tuple[str, ...]:
    model = model or nearest_centre()
    data = load_data(x if labels is None else (x, labels), model.graph.inputs, Preprocess())
    return check_labels(model, reference(model, data))


def test_nothing_is_said_of_good_data():
    assert data_notes(X[:60], (X[60:], Y[60:])) == []
    assert label_notes(X, Y) == ()
    assert label_notes(X[:1], Y[:1]) == ()
    assert label_notes(X[Y == 3], Y[Y == 3]) == ()  # one class alone


@pytest.mark.parametrize("value", [0.0, 5.0, -1.5, 255.0, 1e-20])
@pytest.mark.parametrize("samples", [1, 8, 100])
def test_constant_calibration_data_is_refused(value, samples):
    with pytest.raises(InputError, match=rf"data: every value is {value:g} for input 'x'; calibration needs") as caught:
        data_notes(np.full((samples, WIDTH), value, np.float32))
    assert "\n" not in str(caught.value)


def spoiled(change) -> np.ndarray:
    x = X.copy()
    change(x)
    return x


@pytest.mark.parametrize(
    "calibration, evaluation, said",
    [
        (spoiled(lambda x: x.__setitem__((3, 0), 1e6)), None, "sample 3 for input 'x' reaches 1e.06, and the typical"),
        (spoiled(lambda x: x.__setitem__((7, 2), -500)), None, "sample 7 for input 'x' reaches 500"),
        (spoiled(lambda x: x.__imul__(np.where(np.arange(N) == 9, 1e4, 1)[:, None])), None, "sample 9"),
        (spoiled(lambda x: x.__setitem__((5, 4), 20)), None, "sample 5 for input 'x' reaches 20, and the typical"),
        (X[:6], None, "calibrated on 6 samples; 100 or more"),
        (np.concatenate([X, X[:20]]), None, "20 of 140 samples are copies"),
        (X[[0] * 40 + list(range(80))], None, "40 of 120 samples are copies"),
        (X[:60], X[30:90], "30 of 60 evaluation samples also calibrate"),
        (X[:60], X[60:] * 255, "calibration data reaches from 0 to 1, evaluation data from 0 to 255"),
        (X[:60] * 255, X[60:], "calibration data reaches from 0 to 255, evaluation data from 0 to 1"),
        (X[:60], X[60:] - 8, "evaluation data from -8 to -7"),
    ],
)
def test_data_that_is_odd(calibration, evaluation, said):
    (note,) = data_notes(calibration, evaluation)
    assert re.search(said, note) and "\n" not in note


def test_one_of_several_inputs_is_constant():
    model = parse("(float[1, 4] a, float[1, 4] b) => (float[1, 4] y) { y = Add(a, b) }")
    (note,) = data_notes({"a": X[:60, :4], "b": np.ones((60, 4), np.float32)}, model=model)
    assert "input 'b' is 1 in every sample" in note


def test_data_outside_of_the_range_that_the_model_brings():
    model = nearest_centre()
    given = Quantization(np.array([2 / 255], np.float32), np.array([0], np.int32))
    set_given_quantization(model.graph.inputs[0], given)
    (note,) = data_notes(X * 255, model=model)
    assert "reaches from 0 to 255, but the model was quantized for -1.004 to 0.9961: check the preprocessing" in note
    assert data_notes(X, model=model) == []


@pytest.mark.parametrize(
    "x, labels, said",
    [
        (X, (Y + 1) % CLASSES, "check the order of the classes: with others in their places, 100.0% are right"),
        (X, np.array([2, 0, 4, 1, 3])[Y], "with others in their places, 100.0% are right"),
        (X[Y > 0], Y[Y > 0] - 1, "add 1 to the labels: so shifted, 100.0% are right"),
        (X[Y < 4], Y[Y < 4] + 1, "subtract 1 from the labels: so shifted, 100.0% are right"),
        (X, RNG.integers(0, CLASSES, N), "which is chance: check labels, preprocessing and class order"),
        (X * 255, Y, "with --preprocess scale=0.003921569, 100.0% of the first 120 samples are right"),
        (X / 255, Y, "with --preprocess scale=255, 100.0%"),
        (X * 127.5 + 127.5, Y, "with --preprocess scale=0.007843137,mean=1, 100.0%"),
    ],
)
def test_a_float_model_at_chance(x, labels, said):
    (note,) = label_notes(x, labels)
    assert "the float model is right on " in note and said in note


@pytest.mark.parametrize("scale, high, said", [(1, 255, True), (1, 1, False), (1 / 255, 255, False), (1, 60, False)])
def test_raw_values_for_a_first_layer_that_knows_0_to_1(scale, high, said):
    pixels = np.rint(RNG.random((20, 1, 8, 8)) * high).astype(np.float32)
    pixels[0, 0, 0, 0] = high
    notes = label_notes(pixels, None, images(scale))
    assert len(notes) == said and all("give --preprocess scale=0.003921569" in note for note in notes)


@pytest.mark.parametrize(
    "mean, deviation, said",
    [(0.3, 0.25, "with --preprocess scale=0.003921569, 75"), (0.5, 0.05, "make the first layer's outputs 491 in size")],
)
def test_raw_values_that_leave_some_accuracy(mean: float, deviation: float, said: str):
    """The model was trained on (x / 255 - mean) / deviation: no scale tried sets it right, and it is above chance."""
    pixels = np.rint(np.random.default_rng(5).random((300, 1, 8, 8)) * 255).astype(np.float32)
    text = "(float[1, 1, 8, 8] x) => (float[1, 4] y) { h = Conv(x, w, b) r = Relu(h) f = Flatten(r) y = Gemm(f, v, d) }"
    draw = np.random.default_rng(6).normal
    arrays = {"w": draw(size=(3, 1, 3, 3)), "b": draw(size=3), "v": draw(size=(108, 4)) / 10, "d": 2 * draw(size=4)}
    model = parse(text, **{name: array.astype(np.float32) for name, array in arrays.items()})
    right = ((pixels / 255 - mean) / deviation).astype(np.float32)
    labels = OnnxRuntime(model).run({"x": right})[0].argmax(axis=1)
    (note,) = label_notes(pixels, labels, model)
    assert said in note and label_notes(right, labels, model) == ()


def test_numbers_that_the_model_does_not_explain():
    text = f"(float[1, {WIDTH}] x) => (float[1, 1] y) {{ y = Gemm<transB = 1>(x, w, b) }}"
    model = parse(text, w=np.ones((1, WIDTH), np.float32), b=np.zeros(1, np.float32))
    total = X.sum(axis=1)
    chosen = "data: output 'y' is measured by r2, as the output is one number for each sample"
    assert label_notes(X, total, model) == (chosen,)
    first, note = label_notes(X, 1000 + total, model)
    assert first == chosen and "explains nothing of the labels of output 'y'" in note


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (3, 1, 4)])
def test_samples_that_are_whole_inputs_choose_ranges_too(shape):
    """Where axis 0 is no batch, as the steps of a recurrent layer, a sample is all of the input."""
    dims = ", ".join(map(str, shape))
    model = parse(f"(float[{dims}] x) => (float[{dims}] y) {{ h = Sigmoid(x) y = Mul(h, x) }}")
    x = RNG.normal(size=(40, *shape)).astype(np.float32)
    quantized = quantize(model, load_data(x, model.graph.inputs, Preprocess()), Recipe().quantize, integer_only=False)
    assert any(quantization(value) is not None for node in quantized.model.graph for value in node.outputs)
