"""Files for ONNX Runtime on x86 without VNNI: weights as uint8, equal in value, and exact where int8 ones saturate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import edgecompress
from edgecompress.emit.onnx.unsigned_weights import with_unsigned_weights
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.saturation import as_devices_compute, saturates

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
CALIBRATION = {"pixels": np.load(DIGITS / "train.npz")["x"][:100]}
OFF = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


def scores(model: bytes, level: onnxruntime.GraphOptimizationLevel) -> np.ndarray:
    """Of 100 digits."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = np.load(DIGITS / "test.npz")["x"][:100].astype(np.float32)
    return np.concatenate([session.run(None, {"pixels": image[None]})[0] for image in images])


def types(model: bytes) -> set[int]:
    """Of the constants that DequantizeLinear reads, but for biases."""
    graph = onnx.load_model_from_string(model).graph
    constants = {t.name: t.data_type for t in graph.initializer}
    read = {n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"} & set(constants)
    return {constants[name] for name in read} - {onnx.TensorProto.INT32}


@pytest.mark.parametrize("recipe", [{}, {"cluster": {"bits": 4}}], ids=["int8", "clustered"])
def test_both_files_mean_the_same(tmp_path: Path, recipe: dict) -> None:
    """A PC without VNNI gets uint8; in float both files compute the same, and the PC's also with integer kernels."""
    for target in ("android", "linux-x86"):
        edgecompress.convert(
            DIGITS / "digits.onnx", target, calib=CALIBRATION, recipe=recipe, formats=["onnx"], output=tmp_path / target
        )
    phone, pc = (next((tmp_path / target).glob("*.onnx")).read_bytes() for target in ("android", "linux-x86"))
    expected = scores(phone, OFF)
    np.testing.assert_array_equal(scores(pc, OFF), expected)
    noise = np.abs(scores(pc, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL) - expected)
    assert np.sqrt(np.mean(np.square(noise))) < 0.03 * np.std(expected)  # 30 dB: rounding of integer kernels
    assert np.argmax(expected, 1).tolist() != [0] * 100
    if not recipe:
        assert types(phone) == {onnx.TensorProto.INT8} and types(pc) == {onnx.TensorProto.UINT8}


def test_checks_compute_as_devices_do() -> None:
    """Two weights of 127 by two activations of 255 are 64,770, which 16 bits do not hold."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[1,64] x) => (float[1,16] y) {
            q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear(i, s, n)
            m = MatMul(d, w) r = QuantizeLinear(m, t, z) y = DequantizeLinear(r, t, z) }"""
    )
    arrays = {"s": np.float32(1), "t": np.float32(64 * 127), "z": np.uint8(0), "n": np.int8(0)}
    arrays["i"] = np.full((64, 16), 127, np.int8)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items())
    data = model.SerializeToString()
    (found,) = OnnxRuntime(data).run({"x": np.full((1, 64), 255, np.float32)})
    assert (found == 255 * 64 * 127).all()
    if saturates():
        assert as_devices_compute(data) != data
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        assert (session.run(None, {"x": np.full((1, 64), 255, np.float32)})[0] < 255 * 64 * 127).all()
    else:
        assert as_devices_compute(data) is data


def test_what_others_read_stays() -> None:
    """A constant that something else reads too is left alone."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[1,2] x) => (float[1,2] y, int8[2,2] c)
            <int8[2,2] i = {1, 2, 3, 4}, float s = {0.5}, int8 n = {0}> {
            w = DequantizeLinear(i, s, n) y = MatMul(x, w) c = Identity(i) }"""
    )
    before = model.SerializeToString()
    assert not with_unsigned_weights(model) and model.SerializeToString() == before
