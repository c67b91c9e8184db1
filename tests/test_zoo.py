"""Every network through the whole chain: float files equal torch, int8 ones of convolutions keep 20 dB."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import quantize
from edgecompress.emit import onnx as emit_onnx
from edgecompress.emit import pack as emit_pack
from edgecompress.emit import tflite as emit_tflite
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import Interpreter, OnnxRuntime, installed_tflite_interpreters
from edgecompress.ingest import load
from edgecompress.recipe import Recipe
from edgecompress_runtime.codegen.ordinary_layers import summary
from edgecompress_runtime.codegen.program import program_of
from edgecompress_runtime.families.table import FAMILIES
from networks import NETWORKS, example, reference

# of which networks more than MOST_SLOW of the products are in slow kernels, and why
SLOW = {
    **dict.fromkeys(("conv1d", "conv1d_dynamo", "segmentation"), "dilated"),
    **dict.fromkeys(("upconvolutions", "grouped_upconvolution"), "TRANSPOSE_CONV"),
}
MOST_SLOW = 0.02
FAMILIES_TESTED = ("generic", "helium", "x86 avx2")
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
def test_few_products_are_in_slow_kernels(name, quantized):
    plan = emit_pack.plan(quantized(name), io_dtype=ir.DataType.INT8)
    for family in FAMILIES_TESTED:
        ordinary = program_of(plan, "model", FAMILIES[family], 16).interface.ordinary
        slow = [layer for layer in ordinary if name not in SLOW or SLOW[name] not in str(layer)]
        assert sum(layer.share for layer in slow) <= MOST_SLOW, f"{family}: {summary(slow)}"


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_int8_onnx(name, quantized):
    inputs = example(name, SAMPLES)
    interpreter = OnnxRuntime(emit_onnx.emit(quantized(name)))
    assert_close(interpreter.run(inputs), reference(name, inputs), interpreter.name)
