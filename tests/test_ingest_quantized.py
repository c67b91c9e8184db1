"""ONNX models that come quantized, against ONNX Runtime running them as they came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import edgecompress
from edgecompress.compress.quantize.weight_scales import keep_grid, quantize_weight
from edgecompress.errors import InputError
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.saturation import as_devices_compute
from edgecompress.graph.annotations import Quantization, given_quantization
from edgecompress.graph.fusion import layers
from edgecompress.ingest import load

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
KINDS = {"int8": ("QInt8", "QInt8", True), "uint8": ("QUInt8", "QUInt8", False), "uint16": ("QUInt16", "QInt8", True)}


def model(nodes: str, **constants: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[1,3,8,8] x) => (float y) {{ {nodes} }}'
    )
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    return proto


def quantized(folder: Path, kind: str, form: str = "QDQ") -> Path:
    """The digits sample as ONNX Runtime quantizes it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(np.load(DIGITS / "train.npz")["x"][:100].astype(np.float32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.samples, None)
            return None if sample is None else {"pixels": sample[None]}

    activations, weights, per_channel = KINDS[kind]
    quantize_static(
        DIGITS / "digits.onnx",
        folder / f"{kind}.onnx",
        Reader(),
        quant_format=QuantFormat[form],
        per_channel=per_channel,
        activation_type=QuantType[activations],
        weight_type=QuantType[weights],
    )
    return folder / f"{kind}.onnx"


def outputs(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(as_devices_compute(path.read_bytes()), providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(None, {"pixels": x[None]})[0] for x in np.load(DIGITS / "test.npz")["x"].astype(np.float32)]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_onnx_runtime_quantized(tmp_path: Path, kind: str) -> None:
    path = quantized(tmp_path, kind)
    made = edgecompress.convert(
        path, "android", calib=DIGITS / "train.npz", eval=DIGITS / "test.npz", formats=["onnx"], output=tmp_path / "out"
    )
    ours, theirs = outputs(made.artifacts["onnx"]), outputs(path)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.995
    if kind == "int8":  # the same scales and integers; a tie may be rounded otherwise
        step = np.diff(np.unique(theirs)).min()
        np.testing.assert_allclose(ours, theirs, atol=1.01 * step)
        assert (ours == theirs).mean() > 0.999
    assert made.report.achieved.float_value > 98, "without the activations that it leaves out it would be far less"
    (note,) = [n for n in made.report.notes if "came quantized" in n]
    assert "calibrated again" in note if kind == "uint16" else "9 values keep their scales" in note


@pytest.mark.parametrize("target", ["android", "cortex-m4"])
def test_a_model_with_all_scales_needs_no_data(tmp_path: Path, target: str) -> None:
    path = quantized(tmp_path, "int8")
    alone, calibrated = (
        edgecompress.convert(path, target, formats=["pack"], calib=calib, output=tmp_path / name)
        for name, calib in (("alone", None), ("calibrated", DIGITS / "train.npz"))
    )
    assert alone.artifacts["pack"].read_bytes() == calibrated.artifacts["pack"].read_bytes()
    assert alone.report.achieved.encoding == "int8" and alone.report.requested.calibration is None
    assert any("random inputs" in note for note in alone.report.notes)
    pruning = tmp_path / "prune.toml"
    pruning.write_text("[prune]\nsparsity = 0.5\n")
    for source, recipe in ((path, pruning), (quantized(tmp_path, "uint16"), None)):
        with pytest.raises(InputError, match="calibration data"):
            edgecompress.convert(source, "cortex-m4", recipe=recipe, output=tmp_path / "none")


def test_layers_on_integers_keep_their_scales(tmp_path: Path) -> None:
    path = quantized(tmp_path, "int8", "QOperator")
    found = load(path)
    assert {n.op_type for n in found.model.graph} <= {"Conv", "Relu", "Add", "MaxPool", "Reshape", "Gemm"}
    assert any("7 values keep their scales" in note for note in found.notes)
    pixels = np.load(DIGITS / "test.npz")["x"].astype(np.float32)
    floats = np.concatenate([OnnxRuntime(found.model).run({"pixels": x[None]})[0] for x in pixels])
    assert (floats.argmax(1) == outputs(path).argmax(1)).mean() >= 0.99


def test_layers_whose_inputs_are_quantized_as_they_come_compute_on_floats(tmp_path: Path) -> None:
    """DynamicQuantizeLinear and ConvInteger, as ONNX Runtime's tool writes them: the weights keep their integers."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(DIGITS / "digits.onnx", path, weight_type=QuantType.QUInt8)
    assert "DynamicQuantizeLinear" in {n.op_type for n in onnx.load(path).graph.node}
    model = load(path).model
    assert not {"Round", "ReduceMax", "Cast"} & {n.op_type for n in model.graph}
    pixels = np.load(DIGITS / "test.npz")["x"].astype(np.float32)[:400]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for x in pixels[:3]:
        (expected,), (y,) = session.run(None, {"pixels": x[None]}), OnnxRuntime(model).run({"pixels": x[None]})
        np.testing.assert_allclose(y, expected, atol=0.05 * np.abs(expected).max())


def test_a_bias_that_is_rounded_as_it_comes_is_exact() -> None:
    """As ONNX Runtime's tool of 2020 wrote biases: Floor(bias / scale) is added to the sums of integers."""
    rng = np.random.default_rng(0)
    w, b = rng.integers(0, 256, (4, 3, 3, 3), np.uint8), rng.normal(size=4).astype(np.float32)
    proto = model(
        "q, s, z = DynamicQuantizeLinear(x) t = Mul(s, v) d = Div(b, t) f = Floor(d) i = Cast<to=6>(f) "
        "c = ConvInteger(q, w, z, zero) r = Reshape(i, shape) a = Add(c, r) k = Cast<to=1>(a) y = Mul(k, t)",
        v=np.float32(0.01), w=w, b=b, zero=np.uint8(120), shape=np.array([1, 4, 1, 1]),
    )  # fmt: skip
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    exact = model("y = Conv(x, w, b)", w=(w.astype(np.float32) - 120) * np.float32(0.01), b=b)
    exact.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)}
    (found,) = OnnxRuntime(load(proto).model).run(feeds)
    (expected,), (rounded,) = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, feeds) for m in (exact, proto)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found, rounded, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_recurrent_layers_whose_inputs_are_quantized_as_they_come(
    tmp_path: Path, per_channel: bool, direction: str
) -> None:
    """DynamicQuantizeLSTM, as ONNX Runtime's tool writes it, against the float layer with the integers' weights."""
    from onnxruntime.quantization import quantize_dynamic

    rng, count = np.random.default_rng(0), 2 if direction == "bidirectional" else 1
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[7,1,6] x, float[d,1,5] h) => (float y, float n) '
        f'{{ y, n = LSTM<hidden_size=5, direction="{direction}">(x, w, r, b, , h) }}'
    )
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value = count
    shapes = {"w": (count, 20, 6), "r": (count, 20, 5), "b": (count, 40)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in weights.items())
    onnx.save(proto, tmp_path / "float.onnx")
    # 7 bits: sums of more overflow on x86 without VNNI
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "lstm.onnx", per_channel=per_channel, reduce_range=True)
    made = onnx.load(tmp_path / "lstm.onnx")
    assert [n.op_type for n in made.graph.node] == ["DynamicQuantizeLSTM"]
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    model = load(made).model
    feeds = {"x": rng.normal(size=(7, 1, 6)).astype(np.float32), "h": np.full((count, 1, 5), 0.5, np.float32)}
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    for tensor in proto.graph.initializer:
        if tensor.name != "b":
            w = stored[f"{tensor.name}_quantized"].astype(np.float32)  # [directions, inputs, gates]
            zero, scale = (stored[f"{tensor.name}_{what}"].reshape(count, 1, -1) for what in ("zero_point", "scale"))
            rounded = ((w - zero.astype(np.float32)) * scale).transpose(0, 2, 1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(rounded), tensor.name))
    exact, rounding, found = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, feeds) for m in (proto, made, ir.to_proto(model))
    )
    for a, b, c in zip(exact, rounding, found, strict=True):
        np.testing.assert_allclose(c, a, atol=1e-5)
        np.testing.assert_allclose(c, b, atol=0.1)


def test_additions_concatenations_and_pools_on_integers() -> None:
    """Microsoft's operators, as ONNX Runtime computes them: to one step, where a tie may be rounded otherwise."""
    proto = model(
        "q = QuantizeLinear(x, s, z) a = com.microsoft.QLinearAdd(q, s, z, q, s, z, t, z) "
        "m = com.microsoft.QLinearMul(q, s, z, a, t, z, t, z) "
        "c = com.microsoft.QLinearConcat<axis=1>(t, z, a, t, z, m, t, z) "
        "l = com.microsoft.QLinearLeakyRelu<alpha=0.1>(c, t, z, s, z) "
        "g = com.microsoft.QLinearGlobalAveragePool(l, s, z, s, z) "
        "k = com.microsoft.QLinearSigmoid(g, s, z, u, low) y = DequantizeLinear(k, u, low)",
        s=np.float32(0.03), t=np.float32(0.05), u=np.float32(1 / 256), z=np.int8(3), low=np.int8(-128),
    )  # fmt: skip
    proto.opset_import.add(domain="com.microsoft", version=1)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    (got,) = OnnxRuntime(load(proto).model).run({"x": x})
    np.testing.assert_allclose(got, expected, atol=0.02)


def as_onnx_runtime(proto: onnx.ModelProto) -> None:
    """Compares what is loaded with ONNX Runtime on the model as it came."""
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0]
    (got,) = OnnxRuntime(load(proto).model).run({"x": x})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_scales_are_kept_where_values_are_moved_between_the_pair() -> None:
    proto = model(
        "a = Conv(x, w) q = QuantizeLinear(a, s, z) m = Transpose<perm=[0, 2, 3, 1]>(q) d = DequantizeLinear(m, s, z) "
        "y = Relu(d)",
        w=np.ones((2, 3, 1, 1), np.float32),
        s=np.float32(0.25),
        z=np.uint8(100),
    )
    found = load(proto)
    assert "QuantizeLinear" not in {n.op_type for n in found.model.graph}
    (kept,) = [q for n in found.model.graph if (q := given_quantization(n.outputs[0])) is not None]
    assert kept.same_as(Quantization(np.array([0.25], np.float32), np.array([-28], np.int32)))


def test_a_range_without_negative_numbers_is_a_relu_but_once() -> None:
    pair = "q{0} = QuantizeLinear({1}, s, z) {0} = DequantizeLinear(q{0}, s, z) "
    proto = model(
        "a = Conv(x, w) "
        + pair.format("b", "a")
        + "c = MaxPool<kernel_shape=[2, 2]>(b) "
        + pair.format("d", "c")
        + "e = Relu(d) "
        + pair.format("y", "e"),
        w=np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32),
        s=np.float32(0.05),
        z=np.uint8(0),
    )
    canonical = load(proto).model
    assert [layer.last.op_type for layer in layers(canonical.graph)].count("Relu") <= 2
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    (got,) = OnnxRuntime(canonical).run({"x": x})
    np.testing.assert_allclose(got, expected, atol=0.05)


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_a_clip_stays_one_operator(low: float) -> None:
    proto = model(
        "c = Clip(x, low, high) q = QuantizeLinear(c, s, z) y = DequantizeLinear(q, s, z)",
        low=np.float32(low),
        high=np.float32(2),
        s=np.float32(0.01),
        z=np.uint8(0),
    )
    canonical = load(proto).model
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    (got,) = OnnxRuntime(canonical).run({"x": x})
    np.testing.assert_allclose(got, x.clip(0, 2), atol=1e-6)
    assert len(canonical.graph) == 1


def test_integers_read_with_another_scale_are_rounded() -> None:
    nodes = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, t, z)"
    as_onnx_runtime(model(nodes, s=np.float32(0.125), t=np.float32(0.2), z=np.int8(7)))


def test_products_and_convolutions_of_integers() -> None:
    layer = "q = QuantizeLinear(x, s, z) {} f = Cast<to=1>(c) y = Mul(f, s)"
    given = {"s": np.float32(0.125), "z": np.uint8(120), "v": np.uint8(99)}
    w = np.random.default_rng(0).integers(0, 255, (8, 4)).astype(np.uint8)
    as_onnx_runtime(model(layer.format("c = MatMulInteger(q, w, z, v)"), w=w, **given))
    kernel = np.random.default_rng(0).integers(0, 255, (2, 3, 3, 3)).astype(np.uint8)
    as_onnx_runtime(model(layer.format("c = ConvInteger<pads=[1,1,1,1]>(q, w, z, v)"), w=kernel, **given))
    as_onnx_runtime(model("q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z)"))


def test_without_a_zero_point_it_is_zero_and_uint8() -> None:
    found = load(
        model(
            "a = Conv(x, w) q = QuantizeLinear(a, s) y = DequantizeLinear(q, s)",
            w=np.ones((2, 3, 1, 1), np.float32),
            s=np.float32(0.1),
        )
    )
    (kept,) = [q for n in found.model.graph if (q := given_quantization(n.outputs[0])) is not None]
    assert kept.zero_point == -128


def test_scales_that_are_computed_are_roundings() -> None:
    nodes = "m = ReduceMax<keepdims=0>(x) s = Div(m, c) q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
    as_onnx_runtime(model(nodes, z=np.int8(0), c=np.float32(64)))


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=st.integers(-127, 127)),
    st.floats(1e-4, 1e2),
    st.integers(0, 2**32 - 1),
)
def test_integers_are_found_again_in_folded_weights(integers: np.ndarray, step: float, seed: int) -> None:
    """One step for all channels; a factor for each is folded in afterwards. What is stored is the weight, exactly."""
    factor = np.random.default_rng(seed).uniform(-3, 3, (len(integers), 1)).astype(np.float32)
    weight = (integers * np.float32(step)) * factor
    found = keep_grid(weight, quantize_weight(weight, 0))
    stored = found.dequantize(found.quantize(weight))
    np.testing.assert_allclose(stored, weight, rtol=1e-5, atol=1e-6 * np.abs(weight).max())


def test_weights_off_any_grid_keep_ordinary_scales() -> None:
    weight = np.random.default_rng(0).normal(size=(16, 9)).astype(np.float32)
    ordinary = quantize_weight(weight, 0)
    np.testing.assert_array_equal(keep_grid(weight, ordinary).scale, ordinary.scale)


def test_another_weight_means_another_range(tmp_path: Path) -> None:
    recipe = tmp_path / "prune.toml"
    recipe.write_text("[prune]\nsparsity = 0.5\n")
    made = edgecompress.convert(
        quantized(tmp_path, "int8"),
        "android",
        calib=DIGITS / "train.npz",
        recipe=recipe,
        formats=["onnx"],
        output=tmp_path / "out",
    )
    assert any("calibrated again" in note for note in made.report.notes)
    onnx.checker.check_model(onnx.load(made.artifacts["onnx"]))
