"""Bounds of values against what ONNX Runtime computes, and against the exact bounds of sums."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest

from edgecompress.analysis.value_bounds import intervals
from edgecompress.graph.intervals import Interval

RNG = np.random.default_rng(3)
LOW, HIGH = -1.5, 2.0  # of the input, which a Clip bounds
ROOM = 1.5e-3  # of the sum of all magnitudes, for sums in float32 in any order


def model(body: str, **constants: np.ndarray) -> ir.Model:
    """x, [1, 3, 4, 4], is c between LOW and HIGH; y is computed from it."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[1, 3, 4, 4] x) => (float y) {{ c = Clip(x, l, h) {body} }}'
    )
    bounds = {"l": np.array(LOW, np.float32), "h": np.array(HIGH, np.float32)}
    for name, array in (bounds | constants).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def bounds(m: ir.Model) -> Interval:
    return intervals(m)[m.graph.outputs[0]]


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


K = np.array([-2.0, 0.5, 3.0], np.float32).reshape(3, 1, 1)


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        ("y = Add(c, k)", LOW + K, HIGH + K),
        ("y = Add(k, c)", LOW + K, HIGH + K),
        ("y = Sub(c, k)", LOW - K, HIGH - K),
        ("y = Sub(k, c)", K - HIGH, K - LOW),
        ("y = Mul(c, k)", np.minimum(LOW * K, HIGH * K), np.maximum(LOW * K, HIGH * K)),
        ("y = Mul(c, c)", LOW * HIGH, HIGH * HIGH),  # as if both were chosen on their own
        ("y = Add(c, c)", 2 * LOW, 2 * HIGH),
        ("y = Sub(c, c)", LOW - HIGH, HIGH - LOW),
        ("y = Relu(c)", 0, HIGH),
        ("y = LeakyRelu<alpha=0.5>(c)", LOW / 2, HIGH),
        ("y = Sigmoid(c)", 1 / (1 + np.exp(-LOW)), 1 / (1 + np.exp(-HIGH))),
        ("y = Tanh(c)", np.tanh(LOW), np.tanh(HIGH)),
        ("y = HardSigmoid<alpha=0.2, beta=0.5>(c)", 0.2, 0.9),
        ("y = Concat<axis=1>(c, k4)", [LOW] * 3 + [-2, 0.5, 3], [HIGH] * 3 + [-2, 0.5, 3]),
        ("y = Pad(c, pads)", LOW, HIGH),
        ("y = Pad(c, pads, filler)", LOW, 7),
        ("d = Add(c, four) y = Pad(d, pads)", 0, HIGH + 4),
        ("d = Add(c, four) y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1]>(d)", LOW + 4, HIGH + 4),
        ("d = Add(c, four) y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(d)", 0, HIGH + 4),
        ("d = Add(c, four) y = AveragePool<kernel_shape=[2,2], count_include_pad=1>(d)", LOW + 4, HIGH + 4),
        ("y = ReduceMean<keepdims=1>(c, axes)", LOW, HIGH),
        ("y = Transpose<perm=[0,2,3,1]>(c)", LOW, HIGH),
        ("y = BatchNormalization<epsilon=0.25>(c, s, t, m, v)", [-4, -2.5, -13], [3, 8, 1]),
    ],
)
def test_bounds_of_an_operator_are_the_exact_ones(body: str, low: np.ndarray, high: np.ndarray) -> None:
    constants = {
        "k": K,
        "k4": np.broadcast_to(K[None], (1, 3, 4, 4)).copy(),
        "four": np.array(4, np.float32),
        "filler": np.array(7, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "axes": np.array([2, 3]),
        "s": np.array([2, 3, -4], np.float32),  # with deviation 1: 2 (x - 0.5), 3 x + 2, -4 (x + 1) - 1
        "t": np.array([0, 2, -1], np.float32),
        "m": np.array([0.5, 0, 1], np.float32) * np.array([1, 1, -1], np.float32),
        "v": np.full(3, 0.75, np.float32),
    }
    words = set(body.replace("(", ",").replace(")", ",").replace(" ", "").split(","))
    found = bounds(model(body, **{name: array for name, array in constants.items() if name in words}))
    shaped = [np.reshape(side, (-1, 1, 1) if np.ndim(side) == 1 else np.shape(side)) for side in (low, high)]
    for side, expected in zip((found.low, found.high), shaped, strict=True):
        np.testing.assert_allclose(*np.broadcast_arrays(side, expected), rtol=1e-6)


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("groups", [1, 3])
def test_bounds_of_a_convolution_are_little_more_than_exact(pads: int, groups: int) -> None:
    weight, bias, shift = floats(6, 3 // groups, 2, 2), floats(6), np.float32(4)
    body = f"d = Add(c, four) y = Conv<group={groups}, pads=[{pads},{pads},{pads},{pads}]>(d, w, b)"
    found = bounds(model(body, w=weight, b=bias, four=shift))
    low, high = (0.0 if pads else LOW + 4), HIGH + 4
    w, b = weight.astype(np.float64).reshape(6, -1), bias.astype(np.float64)
    least = (np.maximum(w, 0) * low + np.minimum(w, 0) * high).sum(1) + b
    largest = (np.maximum(w, 0) * high + np.minimum(w, 0) * low).sum(1) + b
    assert (found.low.reshape(-1) < least).all() and (found.high.reshape(-1) > largest).all()  # room for float32
    room = ROOM * np.abs(w).sum(1) * high
    assert (np.abs(found.low.reshape(-1) - least) < room).all()
    assert (np.abs(found.high.reshape(-1) - largest) < room).all()


def test_bounds_of_a_fully_connected_layer_are_little_more_than_exact() -> None:
    weight, bias = floats(5, 3), floats(5)
    m = model("p = GlobalAveragePool(c) r = Reshape(p, shape) y = Gemm<transB=1>(r, w, b)", w=weight, b=bias,
              shape=np.array([1, 3]))  # fmt: skip
    found, w = bounds(m), weight.astype(np.float64)
    least = (np.maximum(w, 0) * LOW + np.minimum(w, 0) * HIGH).sum(1) + bias
    assert (found.low.reshape(-1) < least).all()
    assert (np.abs(found.low.reshape(-1) - least) < ROOM * np.abs(w).sum(1) * HIGH).all()
