"""Matrices and tables as int8 beside float activations, as each format stores them and each runtime computes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import quantizing
from edgecompress.compress.quantize import quantize_dynamic, simulation
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack, tflite
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import is_integer, quantization
from edgecompress.ingest import load
from edgecompress.recipe import Quantize
from formats import FORMATS, Arrays, on_litert, on_onnx, on_plan

DEPTH, WIDTH, ROWS = 256, 260, 6
UNLIKE = np.geomspace(0.01, 4, WIDTH).astype(np.float32)  # sizes of channels, as trained networks have them
MATRIX = quantizing.normal(DEPTH, WIDTH) * UNLIKE
NETWORKS = {
    "product": ("y = MatMul(x, w)", {"w": MATRIX}),
    "bias": ("m = MatMul(x, w) y = Add(m, b)", {"w": MATRIX, "b": quantizing.normal(WIDTH, seed=1)}),
    "activation": ("m = MatMul(x, w) a = Add(m, b) y = Relu(a)", {"w": MATRIX, "b": quantizing.normal(WIDTH, seed=1)}),
    "one input, two layers": (
        "m = MatMul(x, w) n = MatMul(x, v) y = Add(m, n)",
        {"w": MATRIX, "v": quantizing.normal(DEPTH, WIDTH, seed=2)},
    ),
    "one matrix, two inputs": ("n = Neg(x) m = MatMul(n, w) a = MatMul(x, w) y = Sub(a, m)", {"w": MATRIX}),
}


def built(body: str, inputs: str = f"float[1, {ROWS}, {DEPTH}] x", **constants: np.ndarray) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => (float[N, M, K] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return load(model).model


def rows(seed: int = 5) -> np.ndarray:
    """Of unlike sizes, one of them zeros, one that lies far from 0, and one without a negative number."""
    x = quantizing.normal(1, ROWS, DEPTH, seed=seed) * np.array([1, 50, 0, 1, 0.01, 3], np.float32)[:, None]
    x[0, 3] += 20
    x[0, 5] = np.abs(x[0, 5])
    return x


def by_formula(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Each row of x rounded to 256 steps from its least number to its largest, or 0; each column of w to 127 steps."""
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    step = np.where(high > low, (high - low) / 255.0, 1.0)
    scale = np.abs(w).max(0) / 127.0
    return (np.floor((x - low) / step + 0.5) * step + low) @ (np.rint(w / scale) * scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_products_of_float_rows_and_int8_matrices(name: str) -> None:
    body, constants = NETWORKS[name]
    model = quantize_dynamic(built(body, **constants), Quantize())
    exact = OnnxRuntime(simulation(model)).run({"x": rows()})[0]
    assert not any(is_integer(node) for node in model.graph)
    for format, run in FORMATS.items():
        for row, (a, b) in enumerate(zip(exact[0], run(model, {"x": rows()})[0][0], strict=True)):
            assert quantizing.snr_db(a, b) > 35 or not np.abs(a - b).max(), (format, row)


@pytest.mark.parametrize("is_unsigned", [False, True])
def test_onnx_runtime_multiplies_integers(is_unsigned: bool) -> None:
    model = quantize_dynamic(built("y = MatMul(x, w)", w=MATRIX), Quantize())
    data = onnx_emitter.emit(model, unsigned=is_unsigned)
    proto = onnx.ModelProto.FromString(data)
    assert [node.op_type for node in proto.graph.node].count("MatMulInteger") == 1
    kinds = {t.data_type for t in proto.graph.initializer if tuple(t.dims) == MATRIX.shape}
    assert kinds == {onnx.TensorProto.UINT8 if is_unsigned else onnx.TensorProto.INT8}
    found, expected = OnnxRuntime(data).run({"x": rows()})[0][0], by_formula(rows()[0].astype(np.float64), MATRIX)
    largest = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(found - expected) <= 2e-3 * largest).all()  # a half may be rounded either way
    assert (np.abs(found - expected) <= 1e-5 * largest).mean() > 0.5


def test_litert_gets_one_scale_and_the_runtime_all() -> None:
    """tflite-runtime 2.14 is silently wrong about several scales of a FULLY_CONNECTED of float activations."""
    model = quantize_dynamic(built(*NETWORKS["bias"][:1], **NETWORKS["bias"][1]), Quantize())
    written = tflite.emit(model).data
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_content=written).get_tensor_details()
    stored = [d for d in details if d["dtype"] == np.int8]
    assert [d["quantization_parameters"]["scales"].tolist() for d in stored] == [[1.0]]
    (matrix,) = [t for t in pack.plan(model).tensors if t.is_int8]
    assert matrix.scale.size == WIDTH


LOOK_UP, IDS = "e = Gather(t, i) y = Mul(e, s)", "int64[1, 7] i"
TABLE = quantizing.normal(90, 40) * np.geomspace(0.01, 10, 90).astype(np.float32)[:, None]


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("run", [on_litert, on_onnx, on_plan])
def test_rows_of_a_table_have_scales_of_their_own(run, calibrated: bool) -> None:
    model = built(LOOK_UP, IDS, t=TABLE, s=np.ones(40, np.float32))
    ids: Arrays = {"i": np.array([[0, 89, 3, 44, 44, 1, 60]])}
    stored = quantizing.static(model, ids) if calibrated else quantize_dynamic(model, Quantize())
    scale = np.abs(TABLE).max(1, keepdims=True) / 127
    expected = (np.rint(TABLE / scale) * scale)[ids["i"]]
    tolerance = 1e-6 * np.abs(expected).max(-1, keepdims=True)
    found = run(stored, ids)[0]
    if calibrated:  # the product behind is int8
        assert quantizing.snr_db(TABLE[ids["i"]], found) > 35
    else:
        assert (np.abs(found - expected) <= tolerance).all()


def test_files_hold_tables_in_bytes() -> None:
    model = quantize_dynamic(built(LOOK_UP, IDS, t=np.repeat(TABLE, 9, 0), s=np.ones(40, np.float32)), Quantize())
    most = TABLE.size * 9 + 4 * 90 * 9 + 3000
    for data in (onnx_emitter.emit(model), tflite.emit(model).data, pack.emit(model).data):
        assert len(data) < most


@pytest.mark.parametrize("body", ["y = Gather<axis=2>(x, t)", "y = Gather<axis=1>(t, i)"])
def test_what_is_no_table_of_rows_stays(body: str) -> None:
    if "(x" in body:
        model = built(body, "float[1, 4, 40] x", t=np.array([3, 1]))
    else:
        model = built(body, "int64[1, 7] i", t=TABLE)
    stored = quantize_dynamic(model, Quantize())
    assert all(quantization(v) is None for v in stored.graph.initializers.values())
