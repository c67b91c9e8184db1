"""Masks of attention take no part of the scores' scale, whatever they are written with."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgecompress.compress.cluster import cluster
from edgecompress.compress.quantize import Quantized, quantize, quantize_dynamic, to_float16
from edgecompress.compress.quantize.attention_masks import bounded, that_counts
from edgecompress.compress.quantize.diagnose import diagnose
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack, tflite
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime
from edgecompress.ingest import load
from edgecompress.recipe import Cluster, Quantize
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import read_pack
from quantizing import data, normal, snr_db

STEPS, WIDTH = 12, 16
LOWEST = float(np.finfo(np.float32).min)
CAUSAL = "t = Add(s, mask)"
PADDING = "o = Sub(one, keep) m = Mul(o, low) u = Reshape(m, row) t = Add(s, u)"
MASKS = {
    "of a hundred": (CAUSAL, -100.0),
    "of ten thousand": (CAUSAL, -1e4),
    "of a billion": (CAUSAL, -1e9),
    "lowest float": (CAUSAL, LOWEST),
    "minus infinity": (CAUSAL, -np.inf),
    "on the left": ("t = Add(mask, s)", -1e4),
    "padding": (PADDING, -1e4),
    "padding, lowest float": (PADDING, LOWEST),
    "where": ("t = Where(causal, low, s)", -1e9),
    "where, lowest float": ("t = Where(causal, low, s)", LOWEST),
}


def attention(masking: str, low: float) -> ir.Model:
    inputs = f"float[1, {STEPS}, {WIDTH}] x" + (f", float[1, {STEPS}] keep" if "keep" in masking else "")
    text = f"""<ir_version: 10, opset_import: ["" : 21]> net ({inputs}) => (float[1, {STEPS}, {WIDTH}] y) {{
    q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) r = Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, r)
    {masking} p = Softmax(t) z = MatMul(p, v) y = MatMul(z, wo) }}"""
    upper = np.triu(np.ones((STEPS, STEPS), bool), 1)
    constants = {
        **{f"w{n}": normal(WIDTH, WIDTH, seed=i) / (8 if n in "qk" else 4) for i, n in enumerate("qkvo")},
        "mask": np.where(upper, np.float32(low), np.float32(0)),
        "low": np.float32(low),
        "one": np.float32(1),
        "causal": upper[None],
        "row": np.array([1, 1, STEPS]),
    }
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    for name in used & constants.keys():
        model.graph.initializer.append(onnx.numpy_helper.from_array(constants[name], name))
    return load(model).model


def sequences(model: ir.Model, count: int, seed: int) -> dict[str, np.ndarray]:
    arrays = {"x": normal(count, STEPS, WIDTH, seed=seed)}
    if len(model.graph.inputs) > 1:
        lengths = np.random.default_rng(seed).integers(4, STEPS + 1, count)
        arrays["keep"] = (np.arange(STEPS) < lengths[:, None]).astype(np.float32)
    return arrays


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("integer_only", [False, True], ids=["float allowed", "integers only"])
def test_a_mask_costs_the_scores_nothing(kind: str, integer_only: bool):
    model = attention(*MASKS[kind])
    made = quantize(model, data(model, sequences(model, 32, 1)), Quantize(), integer_only=integer_only).model
    emitted = tflite.emit(made)
    arrays = sequences(model, 16, 2)
    exact = OnnxRuntime(model).run(arrays)[0]
    for interpreter in (LiteRT(emitted.data, emitted, reference=True), OnnxRuntime(onnx_emitter.emit(made))):
        assert snr_db(exact, interpreter.run(arrays)[0]) > 25, interpreter.name


def int8(model: ir.Model) -> Quantized:
    return quantize(model, data(model, sequences(model, 32, 1)), Quantize())


def clustered(model: ir.Model, annotated: ir.Model) -> ir.Model:
    return cluster(annotated, model, data(model, sequences(model, 32, 1)), Cluster(bits=6)).model


ENCODINGS = {
    "float32": ir.Model.clone,
    "float16": to_float16,
    "dynamic": lambda model: quantize_dynamic(model, Quantize()),
    "int8": lambda model: int8(model).model,
    "clustered": lambda model: clustered(model, model),
    "clustered float16": lambda model: clustered(model, to_float16(model)),
    "clustered int8": lambda model: clustered((made := int8(model)).reference, made.model),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_holds_a_mask(encoding: str):
    """A mask is a constant beside the weights, and as large as float32 allows."""
    model = attention(CAUSAL, LOWEST)
    made = ENCODINGS[encoding](model)
    lite, packed = tflite.emit(made), pack.emit(made, coder="rans")
    arrays = sequences(model, 1, 2)
    exact = OnnxRuntime(model).run(arrays)[0]
    reference = LiteRT(lite.data, lite, reference=True).run(arrays)[0]
    (at_home,) = Executor(read_pack(packed.data).plan())(packed.inputs[0].to_device(arrays["x"]))
    found = {
        "onnx": OnnxRuntime(onnx_emitter.emit(made)).run(arrays)[0],
        "tflite": reference,
        "pack": packed.outputs[0].from_device(at_home.reshape(packed.outputs[0].shape)),
    }
    for kind, outputs in found.items():
        assert snr_db(exact, outputs) > 20, kind


def test_that_counts_leaves_the_softmax_as_it_is():
    scores = 8 * normal(3, 5, 20)
    scores[1, 2] = LOWEST  # masked as a whole
    scores[..., 15:] = -1e4

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    kept = that_counts(scores, -1)
    rows = np.delete(scores.reshape(-1, 20), 7, axis=0)
    assert kept.min() > -100 and np.abs(softmax(kept) - softmax(rows)).max() < 20 * np.exp(-10)
    assert that_counts(np.moveaxis(scores, -1, 0), 0).shape == (14, 20)


def test_scores_at_the_end_of_the_graph_are_not_cut():
    """Their order counts however low they are."""
    model = attention("t = Add(s, mask)", -1e4)
    assert bounded(model) is model
    model = attention("t = Add(s, mask)", LOWEST)
    model.graph.outputs[0] = next(n for n in model.graph if n.op_type == "Softmax").outputs[0]
    assert bounded(model) is model


@pytest.mark.parametrize("kind", ["of ten thousand", "padding, lowest float", "where, lowest float"])
def test_a_mask_that_saturates_is_no_error(kind: str):
    model = attention(*MASKS[kind])
    dataset = data(model, sequences(model, 32, 1))
    made = quantize(model, dataset, Quantize())
    found = {d.output: d for d in diagnose(made.reference, made.model, dataset)}
    assert found["t"].snr_db > 20 and all(d.snr_db > 20 and "saturation" not in d.cause for d in found.values())
