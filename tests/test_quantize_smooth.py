"""Smoothing leaves what a network computes, and makes channels behind a norm alike."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import quantize, simulation
from edgecompress.compress.quantize.search import improve
from edgecompress.compress.quantize.smooth import sites, smoothed
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load
from edgecompress.recipe import Quantize
from quantizing import data, normal, snr_db

NORM = "n = LayerNormalization <axis = -1> (x, gain, bias) "
RMS = "q = Mul (x, x) m = ReduceMean <keepdims = 1> (q, last) e = Add (m, eps) r = Sqrt (e) d = Div (x, r) "
NORMS = {
    "LayerNormalization": NORM,
    "LayerNormalization without a bias": "n = LayerNormalization <axis = -1> (x, gain) ",
    "RMSNormalization written out": RMS + "n = Mul (d, gain) ",
    "gain first": RMS + "n = Mul (gain, d) ",
    "a norm on integers": "m = ReduceMean <keepdims = 1> (x, last) c = Sub (x, m) q = Mul (c, c) "
    "k = ReduceMean <keepdims = 1> (q, last) e = Add (k, eps) r = Pow (e, half) d = Mul (c, r) g = Mul (d, gain) "
    "n = Add (g, bias) ",
    "a BatchNormalization": "g = Mul (x, gain) n = Add (bias, g) ",
    "one number for all": "g = Mul (x, one) n = Add (g, bias) ",
    "wide constants": "g = Mul (x, gain3) n = Add (g, bias3) ",
    "moved": NORM.replace("n =", "o =") + "p = Transpose <perm = [1, 0, 2]> (o) n = Reshape (p, whole) ",
}
READERS = {
    "a matrix": NORM + "y = MatMul(n, w)",
    "a matrix with a bias": NORM + "a = MatMul(n, w) y = Add(a, b)",
    "a bias and an activation": NORM + "a = MatMul(n, w) c = Add(a, b) r = Relu(c) y = MatMul(r, u)",
    "two matrices": NORM + "a = MatMul(n, w) c = Add(a, b) d = MatMul(n, v) y = Add(c, d)",
    "one shared matrix": NORM + "a = MatMul(n, w) c = MatMul(x, w) y = Add(a, c)",
}


def network(body: str) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 21]> net (float[1, 6, 16] x) => (float[a, b, c] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    large = np.where(np.arange(16) % 8 == 3, 40, 1).astype(np.float32)
    constants = {
        "gain": large, "bias": large * normal(16), "w": normal(16, 16) / large[:, None] / 4, "b": normal(16),
        "v": normal(16, 16, seed=2) / large[:, None] / 4, "u": normal(16, 16, seed=3) / 4,
        "one": np.float32(3),
        "many": normal(6, 16), "narrow": normal(6, 16),
        "gain3": large.reshape(1, 1, 16), "bias3": (large * normal(16)).reshape(1, 1, 16),
        "eps": np.float32(1e-5), "half": np.float32(-0.5), "last": np.array([-1]), "whole": np.array([1, 6, 16]),
    }  # fmt: skip
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in constants.items() if n in used)
    return load(model).model


def outputs(model: ir.Model, seed: int = 5) -> np.ndarray:
    return OnnxRuntime(model).run({"x": normal(32, 6, 16, seed=seed)})[0]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_smoothed_network_computes_the_same(kind: str, alpha: float):
    model = network(READERS[kind])
    (site,) = sites(model)
    rows = OnnxRuntime(model, extra_outputs=["n"]).run({"x": normal(32, 6, 16)})[1].reshape(-1, 16)
    made = smoothed(model, {"n": (rows.min(axis=0), rows.max(axis=0))}, alpha)
    assert snr_db(outputs(model), outputs(made)) > 100 and len(site.readers) == len(site.value.uses())
    if alpha == 1.0:
        smooth = (
            np.abs(OnnxRuntime(made, extra_outputs=["n"]).run({"x": normal(32, 6, 16)})[1]).reshape(-1, 16).max(axis=0)
        )
        assert smooth.max() / smooth.min() < 1.5 + 2 * ("b" not in {v.name for n in model.graph for v in n.inputs})


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("reader", ["a matrix", "a matrix with a bias"])
def test_every_way_to_write_a_norm(kind: str, reader: str):
    model = network(READERS[reader].replace(NORM, NORMS[kind]))
    (site,) = sites(model)
    name = str(site.value.name)
    found = OnnxRuntime(model, extra_outputs=[name]).run({"x": normal(32, 6, 16)})[1].reshape(-1, 16)
    made = smoothed(model, {name: (found.min(axis=0), found.max(axis=0))}, 1.0)
    assert snr_db(outputs(model), outputs(made)) > 100
    after = OnnxRuntime(made, extra_outputs=[name]).run({"x": normal(32, 6, 16)})[1].reshape(-1, 16)
    reach = np.abs(after).max(axis=0)
    shifted = site.offset is not None and "bias" in reader
    assert reach.max() / reach.min() < 1.5  # every channel uses the range, since the matrix takes all of the difference
    assert not shifted or np.abs(after.max(axis=0) + after.min(axis=0)).max() < 1e-3 * reach.max()


@pytest.mark.parametrize(
    "body",
    [
        "n = Mul (x, many) y = MatMul (n, w)",  # a number for each position
        "n = Add (x, bias) y = MatMul (n, w)",  # nothing divides
        "g = Mul (x, gain) n = Add (g, bias) a = MatMul (n, w) y = Add (a, g)",  # another reads what is in between
        "n = Mul (x, gain) t = Transpose <perm = [0, 2, 1]> (n) y = MatMul (t, narrow)",  # channels become rows
        "n = Mul (x, gain) r = Relu (n) y = MatMul (r, w)",
        "n = Mul (x, gain) y = MatMul (n, n2)",  # a computed matrix
    ],
)
def test_what_is_no_norm(body: str):
    extra = "n2 = Transpose <perm = [0, 2, 1]> (x) " if "n2" in body else ""
    assert not sites(network(extra + body))


@pytest.mark.parametrize("kind", READERS)
def test_the_search_smooths_where_that_helps(kind: str):
    model = network(READERS[kind])
    before = quantize(model, data(model, {"x": normal(64, 6, 16)}), Quantize())
    found = improve(before, Quantize(), 34.0, integer_only=False)
    smoothing = next(t for t in found.tried if t.what.startswith("smoothing"))
    exact, old, new = outputs(model), outputs(simulation(before.model)), outputs(simulation(found.quantized.model))
    assert smoothing.kept == (smoothing.after > smoothing.before + 0.1) and snr_db(exact, new) > snr_db(exact, old)
    assert smoothing.kept or kind == "one shared matrix"


@pytest.mark.parametrize("reader", ["y = Add(n, x)", "y = MatMul(n, w) z = Relu(n)", "a = MatMul(n, w) y = Add(a, n)"])
def test_other_readers_rule_it_out(reader: str):
    model = network(NORM + reader)
    if "z =" in reader:
        model.graph.outputs.append(next(n for n in model.graph if n.op_type == "LayerNormalization").outputs[0])
    assert not sites(model)
