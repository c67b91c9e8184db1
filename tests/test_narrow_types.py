"""Types of 2, 4 and 8 bits, against ml_dtypes, and shifts, against NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.ingest import load

FLOATS = {
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn, "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2, "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "FLOAT4E2M1": ml_dtypes.float4_e2m1fn,
}  # fmt: skip
INTEGERS = {
    "INT4": ml_dtypes.int4, "UINT4": ml_dtypes.uint4, "INT2": ml_dtypes.int2, "UINT2": ml_dtypes.uint2,
}  # fmt: skip


def computed(
    node: onnx.NodeProto, x: np.ndarray, to: int, constants: dict[str, np.ndarray] | None = None, opset: int = 25
) -> np.ndarray:
    """What the node makes of x, once it is loaded."""
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", to, None)],
        [onnx.numpy_helper.from_array(a, name) for name, a in (constants or {}).items()],
    )
    model = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13)).model
    dtype = (model.graph.inputs[0].dtype or ir.DataType.FLOAT).numpy()
    (y,) = OnnxRuntime(model).run({"x": x.astype(dtype)})
    return y


def numbers(dtype: np.dtype) -> np.ndarray:
    """All numbers of the type, the middles between them, and what lies close to these."""
    own = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn if dtype.itemsize > 1 else dtype)
    grid = np.unique(own.astype(np.float32)[np.isfinite(own.astype(np.float32))])
    middles = (grid[1:] + grid[:-1]) / 2
    near = [np.nextafter(middles, np.float32(side) * np.inf) for side in (1, -1)]
    random = np.random.default_rng(0).normal(0, 1, 500) * 10.0 ** np.random.default_rng(1).uniform(-6, 4, 500)
    return np.concatenate([grid, middles, *near, random, [np.nan, 0.0]]).astype(np.float32)


@pytest.mark.parametrize("name", FLOATS)
def test_small_floats_are_rounded_to_the_nearest_even_number(name: str) -> None:
    to, dtype = getattr(onnx.TensorProto, name), np.dtype(FLOATS[name])
    x = numbers(np.dtype(ml_dtypes.float8_e4m3fn) if name == "FLOAT4E2M1" else dtype)
    largest = float(ml_dtypes.finfo(dtype).max)
    y = computed(helper.make_node("Cast", ["x"], ["y"], to=to), x, to)
    expected = np.clip(x, -largest, largest).astype(dtype).astype(np.float32)
    expected = np.where(np.isnan(x), 0, expected) if name == "FLOAT4E2M1" else expected
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", [name for name in FLOATS if name != "FLOAT4E2M1"])
def test_without_saturation_large_numbers_are_no_numbers(name: str) -> None:
    to, dtype = getattr(onnx.TensorProto, name), np.dtype(FLOATS[name])
    largest = np.float32(ml_dtypes.finfo(dtype).max)
    x = np.concatenate([largest * np.array([-4, -1.2, 0.9, 1, 1.01, 1.04, 1.2, 1e3]), [np.inf, -np.inf, np.nan]])
    y = computed(helper.make_node("Cast", ["x"], ["y"], to=to, saturate=0), x.astype(np.float32), to)
    np.testing.assert_array_equal(y, x.astype(np.float32).astype(dtype).astype(np.float32))


@pytest.mark.parametrize("name", INTEGERS)
def test_small_integers_keep_their_lowest_bits(name: str) -> None:
    to, dtype = getattr(onnx.TensorProto, name), INTEGERS[name]
    x = np.arange(-40, 40).astype(np.float32)
    y = computed(helper.make_node("Cast", ["x"], ["y"], to=to), x, to)
    bits = 4 if "4" in name else 2
    low = -(2 ** (bits - 1)) if name.startswith("I") else 0
    np.testing.assert_array_equal(y, (x.astype(np.int64) - low) % 2**bits + low)
    own = np.arange(low, low + 2**bits).astype(dtype)
    back = helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT)
    np.testing.assert_array_equal(computed(back, own, onnx.TensorProto.FLOAT), own.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
def test_shifts(dtype: type) -> None:
    range_ = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(range_.min, range_.max, 40, dtype, endpoint=True)
    n = np.arange(40).astype(dtype) % (range_.bits + 2)
    for direction, shifted in (
        ("LEFT", x.astype(np.int64) << n.astype(np.int64)),
        ("RIGHT", x.astype(np.int64) >> n.astype(np.int64)),
    ):
        node = helper.make_node("BitShift", ["x", "n"], ["y"], direction=direction)
        y = computed(node, x, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), {"n": n}, opset=26)
        np.testing.assert_array_equal(y.astype(dtype), shifted.astype(dtype), err_msg=direction)


def test_scales_of_blocks() -> None:
    rng = np.random.default_rng(0)
    x, zero = (rng.integers(-8, 8, (3, 6)).astype(ml_dtypes.int4), rng.integers(-8, 8, (3, 2)).astype(ml_dtypes.int4))
    scale = rng.uniform(0.1, 1, (3, 2)).astype(np.float32)
    node = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], axis=1, block_size=3)
    y = computed(node, x, onnx.TensorProto.FLOAT, {"s": scale, "z": zero})
    wide = [np.repeat(a, 3, axis=1).astype(np.float32) for a in (zero, scale)]
    np.testing.assert_allclose(y, (x.astype(np.float32) - wide[0]) * wide[1], rtol=1e-6)
