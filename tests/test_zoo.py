"""Every network through the whole chain: float files equal torch, int8 ones of convolutions keep 20 dB."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import quantize
from edgecompress.emit import onnx as emit_onnx
from edgecompress.emit import tflite as emit_tflite
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import Interpreter, OnnxRuntime, installed_tflite_interpreters
from edgecompress.ingest import load
from edgecompress.recipe import Recipe
from networks import NETWORKS, example, reference

CONVOLUTIONAL = [name for name, network in NETWORKS.items() if network.convolutional]
SAMPLES, CALIBRATION_SAMPLES = 4, 64


@pytest.fixture(scope="module")
def ingested(exported):
    """Function from a network's name to its canonical model."""
    return cache(lambda name: load(str(exported(name))).model)


@pytest.fixture(scope="module")
def quantized(ingested, tmp_path_factory):
    """Function from a network's name to its int8 model, calibrated on samples that the tests don't use."""
    folder, recipe = tmp_path_factory.mktemp("calibration"), Recipe()

    @cache
    def model(name: str) -> ir.Model:
        file = folder / f"{name}.npz"
        np.savez(file, **example(name, CALIBRATION_SAMPLES, seed=1))
        data = load_data(str(file), ingested(name).graph.inputs, recipe.preprocess)
        return quantize(ingested(name), data, recipe.quantize).model

    return model


def tflite_interpreters(model: ir.Model) -> list[Interpreter]:
    emitted = emit_tflite.emit(model)
    return [interpreter(emitted.data, emitted) for interpreter in installed_tflite_interpreters()]


def assert_equal(outputs: list[np.ndarray], expected: list[np.ndarray], who: str) -> None:
    """Largest difference at most 1e-4 of the largest value; integers (ArgMax) the same."""
    for i, (ours, theirs) in enumerate(zip(outputs, expected, strict=True)):
        assert ours.shape == theirs.shape, f"{who}, output {i}"
        error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)
        assert error <= (1e-4 if theirs.dtype.kind == "f" else 0), f"{who}, output {i}: {error:.1e}"


def assert_close(outputs: list[np.ndarray], expected: list[np.ndarray], who: str) -> None:
    """Signal-to-noise at least 20 dB in each output."""
    for i, (ours, theirs) in enumerate(zip(outputs, expected, strict=True)):
        noise = np.square(ours - theirs, dtype=np.float64).sum()
        snr = 10 * np.log10(np.square(theirs, dtype=np.float64).sum() / max(noise, 1e-30))
        assert snr >= 20, f"{who}, output {i}: {snr:.1f} dB"


@pytest.mark.parametrize("name", NETWORKS)
def test_float_tflite(name, ingested):
    inputs = example(name, SAMPLES)
    for interpreter in tflite_interpreters(ingested(name)):
        assert_equal(interpreter.run(inputs), reference(name, inputs), interpreter.name)


@pytest.mark.parametrize("name", NETWORKS)
def test_float_onnx(name, ingested):
    inputs = example(name, SAMPLES)
    interpreter = OnnxRuntime(emit_onnx.emit(ingested(name)))
    assert_equal(interpreter.run(inputs), reference(name, inputs), interpreter.name)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_int8_tflite(name, quantized):
    inputs = example(name, SAMPLES)
    for interpreter in tflite_interpreters(quantized(name)):
        assert_close(interpreter.run(inputs), reference(name, inputs), interpreter.name)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_int8_onnx(name, quantized):
    inputs = example(name, SAMPLES)
    interpreter = OnnxRuntime(emit_onnx.emit(quantized(name)))
    assert_close(interpreter.run(inputs), reference(name, inputs), interpreter.name)
