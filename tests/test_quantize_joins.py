"""Unlike quantities that share an output keep scales of their own, in every format and on every kind of target."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgecompress import convert
from edgecompress.compress.quantize import quantize
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import pack, tflite
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime, PackRuntime
from edgecompress.graph.joined_outputs import joins_output
from edgecompress.recipe import Quantize
from quantizing import data, network, normal, samples, snr_db

HEAD = """f = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(f) c = Conv(r, wb, bb) d = Sigmoid(c) boxes = Mul(d, size)
e = Conv(r, wc, bc) scores = Sigmoid(e) """
TAILS = {
    "concat": ("y = Concat <axis = 1> (boxes, scores)", lambda y: y[:, 4:]),
    "reshape behind": ("z = Concat <axis = 1> (boxes, scores) y = Reshape(z, s)", lambda y: y[:, 4:]),
    "transpose behind": (
        "z = Concat <axis = 1> (boxes, scores) y = Transpose <perm = [0, 2, 3, 1]> (z)",
        lambda y: y[..., 4:],
    ),
    "reshape in front": (
        "p = Reshape(boxes, s) q = Reshape(scores, s) y = Concat <axis = 1> (p, q)",
        lambda y: y[:, 4:],
    ),
    "two scales": (
        """z = Concat <axis = 1> (boxes, scores) m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (boxes)
        n = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (scores) v = Concat <axis = 1> (m, n)
        u = Reshape(z, s) t = Reshape(v, s) y = Concat <axis = 2> (u, t)""",
        lambda y: y[:, 4:],
    ),
    "anchors": ("y = Concat <axis = 1> (boxes, scores, anchors)", lambda y: y[:, 4:24]),
    "last axis": (
        """p = Transpose <perm = [0, 2, 3, 1]> (boxes) q = Transpose <perm = [0, 2, 3, 1]> (scores)
        y = Concat <axis = 3> (p, q)""",
        lambda y: y[..., 4:],
    ),
}


def head(tail: str) -> ir.Model:
    rank = 3 if "Reshape" in tail else 4
    return network(
        HEAD + tail,
        output=f"float[{', '.join('ABCD'[:rank])}] y",
        w=normal(8, 3, 3, 3) / 5,
        b=normal(8) / 5,
        wb=normal(4, 8, 1, 1),
        bb=np.zeros(4, np.float32),
        wc=normal(20, 8, 1, 1),
        bc=np.full(20, -2, np.float32),
        size=np.float32(640),
        s=np.array([1, 24, -1] if "u =" in tail else [1, -1, 64]),
        anchors=np.full((1, 2, 8, 8), 100, np.float32),
    )


def outputs(interpreter, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return interpreter.run(arrays)[0]


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("integer_only", [False, True], ids=["float outputs", "int8 outputs"])
def test_scores_beside_boxes_keep_25_db(tail: str, integer_only: bool):
    text, scores = TAILS[tail]
    model = head(text)
    quantized = quantize(model, data(model), Quantize(), integer_only=integer_only).model
    arrays = samples(model, 8, seed=2)
    exact = outputs(OnnxRuntime(model), arrays)
    io_dtype = ir.DataType.INT8 if integer_only else ir.DataType.FLOAT
    lite, packed = tflite.emit(quantized, io_dtype=io_dtype), pack.emit(quantized, io_dtype=io_dtype)
    for interpreter in (
        LiteRT(lite.data, lite),
        LiteRT(lite.data, lite, reference=True),
        PackRuntime(packed.data, packed),
        OnnxRuntime(onnx_emitter.emit(quantized)),
    ):
        found = outputs(interpreter, arrays)
        assert found.shape == exact.shape
        assert snr_db(scores(exact), scores(found)) > 25, interpreter.name
        assert snr_db(exact, found) > 30, interpreter.name
    if integer_only:
        assert {io.dtype for io in lite.outputs} <= {ir.DataType.INT8, ir.DataType.FLOAT}
        assert {io.name for io in lite.outputs} != {"y"}


def test_an_output_in_parts_stands_beside_others():
    model = head("y = Concat <axis = 1> (boxes, scores)")
    model.graph.outputs.insert(0, next(n for n in model.graph if n.op_type == "Relu").outputs[0])
    quantized = quantize(model, data(model), Quantize(), integer_only=True).model
    emitted = pack.emit(quantized, io_dtype=ir.DataType.INT8)
    assert [io.name for io in emitted.outputs] == ["r", "boxes", "scores"]
    arrays = samples(model, 4, seed=2)
    for exact, found in zip(OnnxRuntime(model).run(arrays), PackRuntime(emitted.data, emitted).run(arrays)):
        assert snr_db(exact, found) > 25


def test_alike_quantities_stay_in_one_int8_tensor():
    """Within a factor of eight the whole output is int8, and the file has it as one tensor."""
    model = network("a = Conv(x, w) c = Relu(a) y = Concat <axis = 1> (x, c)", w=normal(3, 3, 1, 1))
    quantized = quantize(model, data(model), Quantize(), integer_only=True).model
    assert not any(joins_output(node) for node in quantized.graph)
    assert [io.name for io in tflite.emit(quantized, io_dtype=ir.DataType.INT8).outputs] == ["y"]


def test_what_is_computed_from_a_join_keeps_it_on_int8():
    """Only what ends in outputs is taken apart: a Relu behind the Concat reads one tensor."""
    model = head("z = Concat <axis = 1> (boxes, scores) y = Relu(z)")
    quantized = quantize(model, data(model), Quantize(), integer_only=True).model
    assert not any(joins_output(node) for node in quantized.graph)


def test_the_report_says_what_parts_an_output_has(tmp_path):
    model = head("z = Concat <axis = 1> (boxes, scores) y = Reshape(z, s)")
    result = convert(model, "cortex-m4", calib=samples(model), output=tmp_path)
    assert [t.name for t in result.report.artifacts[0].outputs] == ["boxes", "scores"]
    assert any("'y'" in n and "'boxes', 'scores'" in n and "Concat along axis 1" in n for n in result.report.notes)
