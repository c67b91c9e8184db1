"""Recurrent layers taken apart for targets of integers alone: nothing of the whole layer stays behind."""

from __future__ import annotations

import numpy as np
import pytest

import quantizing
from edgecompress.compress.quantize import quantize_dynamic
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import tflite
from edgecompress.emit.pack import plan as lowered
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load
from edgecompress.operators.example import Example
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Quantize
from edgecompress_runtime.codegen.program import program_of
from edgecompress_runtime.families.table import FAMILIES
from formats import FORMATS, feeds, original


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize(("inputs", "hidden"), [(8, 8), (32, 64), (96, 64)])
@pytest.mark.parametrize("ways", [1, 2])
def test_weights_of_any_size_leave_with_their_layer(kind: str, gates: int, inputs: int, hidden: int, ways: int) -> None:
    """ONNX Runtime refuses a weight of more than 32 KB that no node reads."""
    direction = "bidirectional" if ways == 2 else "forward"
    rows = gates * hidden
    weights = {"w": (ways, rows, inputs), "r": (ways, rows, hidden), "b": (ways, 2 * rows)}
    nodes = f'y = {kind}<hidden_size={hidden}, direction="{direction}">(x, w, r, b)'
    model = load(Example(nodes, {"x": (3, 1, inputs)}, weights).model()).model
    parts = integer_parts(model.clone())
    assert all(value.uses() for value in parts.graph.initializers.values())
    x = {"x": np.random.default_rng(0).normal(size=(1, 3, 1, inputs)).astype(np.float32)}
    expected, found = OnnxRuntime(model).run(x)[0], OnnxRuntime(parts).run(x)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


STORED = {
    "LSTM": ("ys, y = LSTM<hidden_size=16>(x, w, r, b)", 1, 4),
    "both ways": ('ys, y = LSTM<hidden_size=16, direction="bidirectional">(x, w, r, b)', 2, 4),
    "backwards": ('y = LSTM<hidden_size=16, direction="reverse">(x, w, r, b)', 1, 4),
    "GRU": ("ys, y = GRU<hidden_size=16>(x, w, r, b)", 1, 3),
    "GRU with the reset behind": ("y = GRU<hidden_size=16, linear_before_reset=1>(x, w, r, b)", 1, 3),
    "two": ("y0 = LSTM<hidden_size=16>(x, w, r, b) z = Squeeze(y0, one) y = LSTM<hidden_size=16>(z, w2, r, b)", 1, 4),
}


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("name", STORED)
def test_weights_are_stored_as_int8_while_the_layer_computes_in_float(name: str, calibrated: bool) -> None:
    nodes, directions, gates = STORED[name]
    shapes = {
        "w": (directions, gates * 16, 24),
        "r": (directions, gates * 16, 16),
        "b": (directions, gates * 32),
        "w2": (directions, gates * 16, 16),
    }
    used = {k: shape for k, shape in shapes.items() if k != "w2" or name == "two"}
    constants = {"one": np.array([1])} if name == "two" else {}
    example = Example(nodes, {"x": (3, 1, 24)}, used, constants)
    model = load(example.model()).model
    samples = np.random.default_rng(1).normal(size=(16, 3, 1, 24)).astype(np.float32)
    stored = quantizing.static(model, {"x": samples}) if calibrated else quantize_dynamic(model, Quantize())
    inputs = feeds(model)
    bytes_of = {"onnx": len(onnx_emitter.emit(stored)), "tflite": len(tflite.emit(stored).data)}
    floats = {"onnx": len(onnx_emitter.emit(model)), "tflite": len(tflite.emit(model).data)}
    weights = 4 * sum(int(np.prod(shape)) for key, shape in used.items() if key != "b")
    for kind, run in FORMATS.items():
        for y, expected in zip(run(stored, inputs), original(example, inputs), strict=True):
            assert quantizing.snr_db(np.asarray(expected, np.float64), y) > 30, kind
        if kind in floats:
            assert floats[kind] - bytes_of[kind] > 0.6 * weights, kind


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_float_layers_keep_their_weights(name: str) -> None:
    nodes, directions, gates = STORED[name]
    weights = {"w": (directions, gates * 16, 24), "r": (directions, gates * 16, 16), "b": (directions, gates * 32)}
    model = load(Example(nodes, {"x": (3, 1, 24)}, weights).model()).model
    layer = model.graph.node(0)
    kept = quantize_dynamic(model, Quantize(float_layers=[str(layer.name)]))
    assert tflite.emit(kept).data == tflite.emit(model).data


@pytest.mark.parametrize(("kind", "gates", "ways"), [("LSTM", 4, 1), ("GRU", 3, 2), ("RNN", 1, 1)])
def test_steps_share_their_scales_and_so_their_code(kind: str, gates: int, ways: int) -> None:
    direction = "bidirectional" if ways == 2 else "forward"
    weights = {"w": (ways, gates * 8, 6), "r": (ways, gates * 8, 8), "b": (ways, gates * 16)}
    layers = []
    for steps in (4, 9):
        nodes = f'y = {kind}<hidden_size=8, direction="{direction}">(x, w, r, b)'
        example = Example(nodes, {"x": (steps, 1, 6)}, weights)
        parts = integer_parts(load(example.model()).model)
        samples = quantizing.normal(32, steps, 1, 6)
        quantized = quantizing.static(parts, {"x": samples}, integer_only=True)
        x = {"x": quantizing.normal(steps, 1, 6, seed=1)}
        for name in ("tflite", "pack"):
            for y, expected in zip(FORMATS[name](quantized, x), original(example, x), strict=True):
                assert quantizing.snr_db(expected.astype(np.float64), y) > 25, name
        layers.append(len(program_of(lowered(quantized), "net", FAMILIES["dsp"], 16).layers))
    assert abs(layers[0] - layers[1]) <= 1  # a scale at an end may make one layer more alike, or less
