"""Factors for channels of unlike sizes leave what a network computes, and floats are where they save conversions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import quantize, simulation
from edgecompress.compress.quantize.rescale import rescaled
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import is_integer, quantization
from edgecompress.ingest import load
from edgecompress.recipe import Quantize
from formats import FORMATS
from quantizing import data, normal, snr_db

NORM = "n = LayerNormalization <axis = -1> (x, gain, bias) "
NETWORKS = {
    "a norm beside a sum": NORM + "m = MatMul(n, w) r = Add(m, n) y = LayerNormalization <axis = -1> (r, ones)",
    "a norm for two matrices": NORM + "m = MatMul(n, w) k = MatMul(n, v) a = Add(m, k) r = Add(a, n) "
    "y = LayerNormalization <axis = -1> (r, ones)",
    "a function": "m = MatMul(x, w) h = Add(m, far) g = Gelu(h) y = MatMul(g, v)",
    "into a sum": "m = MatMul(x, wide) h = Add(m, far) r = Add(h, x) y = LayerNormalization <axis = -1> (r, ones)",
    "all of them": NORM
    + "m = MatMul(n, w) h = Add(m, far) g = Gelu(h) f = MatMul(g, wide) k = Add(f, b) r = Add(k, n) "
    "y = LayerNormalization <axis = -1> (r, ones)",
}
PLAIN = Quantize(bias_correction=False)


def network(body: str, large: float = 60.0) -> ir.Model:
    """large: the size of two channels of 16 beside the others."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> net (float[1, 6, 16] x) => (float[a, b, c] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    sizes = np.where(np.arange(16) % 8 == 3, large, 1).astype(np.float32)
    constants = {
        "gain": sizes, "bias": sizes * normal(16), "ones": np.ones(16, np.float32), "b": normal(16),
        "w": normal(16, 16) / sizes[:, None] / 4, "v": normal(16, 16, seed=2) / sizes[:, None] / 4,
        "wide": normal(16, 16, seed=3) * sizes / 4, "far": sizes * np.abs(normal(16, seed=4)),
    }  # fmt: skip
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in constants.items() if n in used)
    return load(model).model


def outputs(model: ir.Model, seed: int = 5) -> np.ndarray:
    return OnnxRuntime(model).run({"x": normal(32, 6, 16, seed=seed)})[0]


def nodes(model: ir.Model) -> int:
    return sum(1 for _ in model.graph)


@pytest.mark.parametrize("name", NETWORKS)
def test_factors_change_nothing_but_int8(name: str) -> None:
    model = network(NETWORKS[name])
    made = rescaled(model, data(model), set())
    assert nodes(made) > nodes(model)
    assert snr_db(outputs(model), outputs(made)) > 100
    every = {str(node.name) for node in model.graph}
    assert rescaled(model, data(model), every) is model  # what the user keeps in float
    int8 = quantize(model, data(model), PLAIN)
    without = quantize(model, data(model), PLAIN, integer_only=False, typical=False)  # which is without factors
    assert nodes(int8.model) > nodes(without.model)
    after, before = (snr_db(outputs(model), outputs(simulation(found.model))) for found in (int8, without))
    assert after > before + 1, (before, after)


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_that_are_alike_stay(name: str) -> None:
    model = network(NETWORKS[name], large=1.0)
    calibration = data(model, {"x": np.sign(normal(32, 6, 16)) * np.float32(1)})
    found = rescaled(model, calibration, set())
    assert found is model or name in ("a function", "all of them")  # Gelu makes channels unlike


def test_targets_of_integers_get_no_factors() -> None:
    model = network("m = MatMul(x, wide) r = Add(m, x) y = MatMul(r, v)")
    found = quantize(model, data(model), PLAIN, integer_only=True)
    assert all(is_integer(node) for node in found.model.graph)


@pytest.mark.parametrize(
    ("body", "is_int8"),
    [
        ("m = MatMul(x, w) r = Add(m, x) y = MatMul(r, v)", True),
        ("m = MatMul(x, w) k = MatMul(x, v) r = Add(m, k) y = LayerNormalization <axis = -1> (r, ones)", True),
        (NORM + "m = MatMul(x, w) r = Add(m, n) y = LayerNormalization <axis = -1> (r, ones)", False),
        (NORM + "p = LayerNormalization <axis = -1> (x, ones) r = Add(p, n) y = MatMul(r, v)", False),
        (NORM + "m = MatMul(x, w) r = Add(m, n) y = MatMul(r, v)", True),
    ],
    ids=["between matrices", "two conversions or one", "between norms", "of norms", "one each"],
)
def test_sums_are_floats_where_that_saves_conversions(body: str, is_int8: bool) -> None:
    model = network(body, large=1.0)
    found = quantize(model, data(model), PLAIN).model
    (total,) = [node for node in found.graph if node.outputs[0].name == "r"]
    assert is_integer(total) == is_int8


@pytest.mark.parametrize("format", FORMATS)
def test_dynamic_layers_have_int8_matrices_beside_floats(format: str) -> None:
    model = network("m = MatMul(x, w) h = Relu(m) k = MatMul(h, v) y = Add(k, x)", large=1.0)
    found = quantize(model, data(model), PLAIN.model_copy(update={"dynamic_layers": ["k"]})).model
    computed = {str(node.outputs[0].name): is_integer(node) for node in found.graph if node.op_type == "MatMul"}
    assert sorted(computed.values()) == [False, True]
    assert all(quantization(node.inputs[1]).axis == 1 for node in found.graph if node.op_type == "MatMul")
    x = normal(1, 6, 16, seed=7)
    assert snr_db(OnnxRuntime(model).run({"x": x})[0], FORMATS[format](found, {"x": x})[0]) > 30


def test_ranges_end_where_a_function_is_flat() -> None:
    model = network("m = MatMul(x, w) h = Add(m, b) g = Gelu(h) y = MatMul(g, v)", large=1.0)
    wide = {"x": 12 * normal(32, 6, 16)}
    found = quantize(model, data(model, wide), Quantize(bias_correction=False, calibration="minmax")).model
    (function,) = [node for node in found.graph if node.op_type == "Gelu"]
    q = quantization(function.inputs[0])
    lowest = float(q.scale[0]) * (-128 - float(q.zero_point[0]))
    assert -4 < lowest < -3
