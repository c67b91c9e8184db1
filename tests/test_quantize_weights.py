"""Scales of weights, biases and ranges; models of which only the weights are quantized."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgecompress.compress.quantize import quantize_dynamic, simulation, to_float16
from edgecompress.compress.quantize.weight_scales import keep_clusters, quantize_bias, quantize_range, quantize_weight
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import Codebook, Quantization, codebook, is_integer, quantization, set_codebook
from edgecompress.recipe import Quantize
from quantizing import CONV, network, normal, samples, snr_db


def test_quantization_is_what_the_annotation_says():
    q = Quantization(np.array([0.5], np.float32), np.array([3], np.int32))
    np.testing.assert_array_equal(q.quantize(np.array([0.0, 0.25, 0.75, 1e9, -1e9])), [3, 3, 5, 127, -128])


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights_match_onnxruntime_quantize_linear(axis):
    weight = normal(6, 5, 3, 3) * np.geomspace(1e-3, 10, 6).reshape(-1, 1, 1, 1).astype(np.float32)
    q = quantize_weight(weight, axis)
    others = tuple(i for i in range(4) if i != axis)
    largest = np.abs(weight).max(axis=None if axis is None else others)
    np.testing.assert_allclose(q.scale, np.atleast_1d(largest) / 127, rtol=1e-6)
    attributes = {} if axis is None else {"axis": axis}
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], **attributes)
    scale = q.scale if axis is not None else q.scale[0]
    arrays = {"x": weight, "s": np.asarray(scale), "z": np.zeros_like(scale, np.int8)}
    found = q.quantize(weight)
    assert np.abs(found).max() == 127
    expected = run_node(node, arrays, np.int8).astype(int)
    assert np.abs(found - expected).max() <= 1 and np.mean(found != expected) < 0.01  # ties, in float32 there
    assert np.abs(q.dequantize(found) - weight).max() <= 0.5001 * q.scale.max()


def run_node(node: onnx.NodeProto, arrays: dict[str, np.ndarray], dtype) -> np.ndarray:
    def info(name, kind):
        element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return onnx.helper.make_tensor_value_info(name, element, None)

    inputs = [info(name, array.dtype) for name, array in arrays.items()]
    graph = onnx.helper.make_graph([node], "g", inputs, [info(node.output[0], dtype)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, arrays)[0]


@pytest.mark.parametrize("axis", [None, 0])
def test_weight_scales_are_widened_until_the_bias_fits(axis):
    weight = normal(4, 9)
    weight[1] *= 1e-9
    weight[2] = 0
    bias = np.array([1.0, 50.0, -3.0, 0.0], np.float32)
    input_scale = 1e-3
    source = Quantization(np.array([input_scale], np.float32), np.zeros(1, np.int32))
    q = quantize_weight(weight, axis, bias=bias, source=source)
    b = quantize_bias(q, source)
    assert b.dtype == ir.DataType.INT32
    np.testing.assert_allclose(b.scale, np.float32(input_scale) * q.scale)
    stored = b.quantize(bias)
    assert np.abs(stored.astype(np.int64)).max() <= 2**30 + 1
    np.testing.assert_allclose(b.dequantize(stored), bias, atol=float(b.scale.max()) / 2 + 1e-6)
    assert q.scale[0] == pytest.approx(np.abs(weight if axis is None else weight[0]).max() / 127)
    assert q.scale.min() > 0


@pytest.mark.parametrize("low, high", [(-1, 3), (0, 5), (2, 5), (-7, -3), (-1e-6, 1e3), (0, 0), (-0.3, 0.7)])
def test_a_range_always_has_an_exact_zero(low, high):
    q = quantize_range(low, high)
    assert -128 <= q.zero_point[0] <= 127 and q.scale.dtype == np.float32
    assert q.dequantize(q.quantize(np.zeros(1)))[0] == 0.0
    for end in (low, high):
        assert abs(float(q.dequantize(q.quantize(np.array([end])))[0]) - end) <= 0.51 * float(q.scale[0])


def test_dynamic_range_and_float16():
    body = "a = Conv(x, w, b) f = Reshape(a, flat) y = Gemm <transB = 1> (f, v, c)"
    model = network(
        body,
        output="float[A, B] y",
        w=normal(4, 3, 1, 1),
        b=normal(4),
        v=normal(5, 256),
        c=normal(5),
        flat=np.array([1, 256]),
    )
    arrays = samples(model, 8)
    exact = OnnxRuntime(model).run(arrays)[0]
    dynamic = quantize_dynamic(model, Quantize())
    weights = {n.op_type: quantization(n.inputs[1]) for n in dynamic.graph if n.op_type in ("Conv", "Gemm")}
    assert weights["Conv"].axis == 0 and weights["Gemm"].axis == 0
    assert not any(is_integer(n) or quantization(n.outputs[0]) for n in dynamic.graph)
    assert snr_db(exact, OnnxRuntime(simulation(dynamic)).run(arrays)[0]) > 35
    assert snr_db(exact, OnnxRuntime(simulation(to_float16(model))).run(arrays)[0]) > 65
    kept = quantize_dynamic(model, Quantize(float_layers=["y"]))
    assert quantization(list(kept.graph)[-1].inputs[1]) is None


def test_weights_beyond_float16_stay_float32():
    model = network(CONV, w=1e5 * normal(4, 3, 3, 3), b=normal(4))
    assert quantization(next(iter(to_float16(model).graph)).inputs[1]) is None


@pytest.mark.parametrize("larger", [1.0, 1.5])
def test_clusters_stay_where_the_scales_of_channels_are_their_own(larger: float) -> None:
    """larger: of the first channel's scale, which then needs more values than the codebook has."""
    centroids, indices = np.array([-1.0, 0.25, 0.5], np.float32), np.array([[0, 1, 2], [2, 0, 1]], np.uint8)
    book = Codebook(centroids, indices, np.array([0.5, 2.0], np.float32), 0)
    value = ir.Value(name="w", const_value=ir.tensor(book.values()))
    set_codebook(value, book)
    q = quantize_weight(book.values(), 0)
    q = Quantization(q.scale * np.array([larger, 1], np.float32), q.zero_point, 0)
    kept, found = keep_clusters(value, q), codebook(value)
    if larger > 1:
        assert kept is q and found is None
    else:
        assert found is not None and found.scale is None
        np.testing.assert_array_equal(found.centroids, [-127, 32, 64])  # round(127 * centroid)
        np.testing.assert_array_equal(found.values(), kept.quantize(book.values()))
