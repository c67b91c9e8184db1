"""Tables that positions pick rows of, such as embeddings, are int8 where integers compute with the rows."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgecompress.compress.quantize import quantize
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack, tflite
from edgecompress.evaluate import micro
from edgecompress.evaluate.interpreters import OnnxRuntime, PackRuntime
from edgecompress.graph.annotations import is_integer
from edgecompress.ingest import load
from edgecompress.operators.rewriting import integer_parts
from edgecompress.recipe import Quantize
from edgecompress_targets import OPERATOR_SETS
from quantizing import data, normal, snr_db

WORDS, LENGTH, WIDTH = 20, 6, 8
BODIES = {
    "positions added": "e = Gather (t, i) a = Add (e, p) y = MatMul (a, w)",
    "a matrix alone": "e = Gather (t, i) y = MatMul (e, w)",
    "behind a norm": "e = Gather (t, i) n = LayerNormalization (e, s, s) y = MatMul (n, w)",
    "two tables": "e = Gather (t, i) f = Gather (u, i) a = Concat <axis = 2> (e, f) y = MatMul (a, wide)",
    "two tables of one size": "e = Gather (t, i) f = Gather (u, i) a = Add (e, f) y = MatMul (a, w)",
    "the table is the last matrix": "e = Gather (t, i) r = Relu (e) tt = Transpose <perm = [1, 0]> (t) "
    "y = MatMul (r, tt)",
    "reshaped positions": "k = Reshape (i, flat) e = Gather (t, k) y = MatMul (e, w)",
    "columns": "e = Gather <axis = 1> (tall, i) r = Reshape (e, rows) y = MatMul (r, w)",
}
CONSTANTS = {
    "t": 3 * normal(WORDS, WIDTH) + 1, "u": normal(WORDS, WIDTH, seed=2), "p": normal(LENGTH, WIDTH),
    "w": normal(WIDTH, 5), "wide": normal(2 * WIDTH, 5), "s": np.linspace(0.5, 2, WIDTH, dtype=np.float32),
    "tall": normal(WIDTH, WORDS), "flat": np.array([LENGTH]), "rows": np.array([LENGTH, WIDTH]),
}  # fmt: skip


def network(body: str, positions: str = "int64") -> ir.Model:
    header = f'<ir_version: 10, opset_import: ["" : 21]> net ({positions}[1, {LENGTH}] i) => (float[a, b, c] y)'
    header = header.replace("a, b, c", "a, b") if "flat" in body or "rows" in body else header
    model = onnx.parser.parse_model(f"{header} {{ {body} }}")
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in CONSTANTS.items() if n in used)
    return integer_parts(load(model).model)


def positions(count: int, seed: int = 0, dtype: str = "int64") -> dict[str, np.ndarray]:
    return {"i": np.random.default_rng(seed).integers(0, WORDS, (count, LENGTH)).astype(dtype)}


def int8(model: ir.Model, dtype: str = "int64") -> ir.Model:
    return quantize(model, data(model, positions(64, dtype=dtype)), Quantize(), integer_only=True).model


@pytest.mark.parametrize(
    ("body", "dtype"),
    [*((body, "int64") for body in BODIES.values()), (BODIES["positions added"], "int32")],
    ids=[*BODIES, "int32"],
)
def test_int8_tables_on_integer_only_targets(body: str, dtype: str):
    model, fresh = network(body, dtype), positions(32, 1, dtype)
    annotated = int8(model, dtype)
    assert all(is_integer(node) for node in annotated.graph if node.op_type == "Gather")
    exact = OnnxRuntime(model).run(fresh)[0]
    written = tflite.emit(annotated, operators=OPERATOR_SETS["tflm"])
    packed = pack.emit(annotated)
    runs = {"pack": PackRuntime(packed.data, packed).run(fresh)[0]}
    runs["onnx"] = OnnxRuntime(onnx_emitter.emit(annotated)).run(fresh)[0]
    if micro.installed():
        runs["tflm"] = micro.TFLM(written.data, written).run(fresh)[0]
        assert written.inputs[0].dtype == ir.DataType.INT32  # all that TFLM picks with
        np.testing.assert_array_equal(runs["tflm"], runs["pack"])
    assert min(snr_db(exact, found) for found in runs.values()) > 25


def test_the_file_holds_the_table_in_bytes():
    model = network(BODIES["positions added"])
    sizes = [len(tflite.emit(m).data) for m in (model, int8(model))]
    table = CONSTANTS["t"].size
    assert sizes[0] - sizes[1] > 2.5 * table - 1500  # less what scales take
