"""The ONNX emitter: what ONNX Runtime makes of the file, and that it computes what the annotations say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from edgecompress.emit.onnx import emit
from edgecompress.evaluate.saturation import as_devices_compute
from edgecompress.graph.annotations import (
    Codebook,
    Quantization,
    is_integer,
    quantization,
    set_activation_bits,
    set_codebook,
    set_quantization,
)
from edgecompress.graph.fusion import constant, layers
from test_interpreters import parse

RNG = np.random.default_rng(0)
SAME = {"MaxPool", "AveragePool", "Concat", "Reshape", "Transpose", "Slice"}  # output in the input's scale
WEIGHT_AXIS = {"Conv": 0, "Gemm": 0, "MatMul": 1}
CONV = "Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1, 1], dilations = [1, 1], group = %d>"


def asymmetric(low: float, high: float) -> Quantization:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, 1e-6) / 255)
    zero_point = np.clip(np.rint(-128 - low / scale), -128, 127)
    return Quantization(np.array([scale]), np.array([zero_point], np.int32))


def symmetric(weight: np.ndarray, axis: int | None) -> Quantization:
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.atleast_1d(np.abs(weight).max(axis=None if axis is None else others)).astype(np.float32) / 127
    return Quantization(scale, np.zeros(len(scale), np.int32), axis, narrow_range=True)


def annotate(model: ir.Model, samples: int = 16) -> list[dict[str, np.ndarray]]:
    """Min/max quantization of every layer, on normal noise, which is returned."""
    graph, run = model.graph, ReferenceEvaluator(ir.to_proto(model))
    feeds = [
        {str(v.name): RNG.normal(size=v.shape.numpy()).astype(np.float32) for v in graph.inputs} for _ in range(samples)
    ]
    values = [v for node in graph for v in node.outputs]
    found = [{**feed, **run.run(None, feed, intermediate=True)} for feed in feeds]
    ranges = {
        str(v.name): (min(f[v.name].min() for f in found), max(f[v.name].max() for f in found))
        for v in (*graph.inputs, *values)
    }
    for value in graph.inputs:
        set_quantization(value, asymmetric(*ranges[str(value.name)]))
    for layer in layers(graph):
        node, output = layer.node, layer.output
        for member in layer.nodes:
            set_activation_bits(member, 8)
        own = asymmetric(*ranges[str(output.name)])
        set_quantization(output, quantization(node.inputs[0]) if node.op_type in SAME else own)
        if node.op_type in WEIGHT_AXIS and constant(node.inputs[1]) is not None:
            q = symmetric(constant(node.inputs[1]), WEIGHT_AXIS[node.op_type])
            set_quantization(node.inputs[1], q)
            scale = q.scale * quantization(node.inputs[0]).scale
            if layer.bias is not None and layer.bias_add is None:
                set_quantization(layer.bias, Quantization(scale, 0 * q.zero_point, 0, ir.DataType.INT32))
        else:
            for value in node.inputs:
                array = constant(value)
                if array is not None and array.dtype == np.float32:
                    set_quantization(value, asymmetric(array.min(), array.max()))
    return feeds


def optimised(data: bytes, tmp_path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime runs in place of the file's."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(data, options)
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


def run(data: bytes, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(as_devices_compute(data)).run(None, feed)


def snr(reference: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - other) ** 2))


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def residual_net() -> ir.Model:
    """Every layer kind that must run on integers, with names that need care."""
    text = f"""(float[1, 3, 16, 16] x) => (float[1, 10] y) {{
        c1 = {CONV % 1}(x, w1, b1)
        r1 = Relu(c1)
        c2 = {CONV % 8}(r1, w2, b2)
        six = Clip(c2, lowest, highest)
        c3 = {CONV % 1}(six, w3, b3)
        a = Add(r1, c3)
        ar = Relu(a)
        k = Concat<axis = 1>(ar, r1)
        p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(k)
        m = AveragePool<kernel_shape = [8, 8]>(p)
        f = Reshape(m, shape)
        g = Gemm<transB = 1>(f, w4, b4)
        y = Softmax<axis = -1>(g)
    }}"""
    model = parse(
        text,
        w1=floats(8, 3, 3, 3),
        b1=floats(8),
        w2=floats(8, 1, 3, 3),
        b2=floats(8),
        w3=floats(8, 8, 3, 3) / 5,
        b3=floats(8),
        w4=floats(10, 16),
        b4=floats(10),
        shape=np.array([1, 16]),
        lowest=np.float32(0),
        highest=np.float32(6),
    )
    model.graph.inputs[0].name, model.graph.outputs[0].name = "in/größe:0", "a"  # "a" is also a short name
    next(v for n in model.graph for v in n.outputs if v.name == "r1").name = "layer/relu:0"
    return model


def test_integer_kernels_for_every_layer(tmp_path):
    model = residual_net()
    annotate(model)
    data = emit(model)
    onnx.checker.check_model(data, full_check=True)
    operators = optimised(data, tmp_path)
    assert operators.pop("Transpose", 0) <= 2  # ONNX Runtime's own, to channels last
    operators["MaxPool"] += operators.pop("NhwcMaxPool", 0)
    assert operators == Counter(
        QuantizeLinear=1,
        DequantizeLinear=1,
        QLinearConv=3,
        QLinearAdd=1,
        QLinearConcat=1,
        MaxPool=1,
        QLinearAveragePool=1,
        Reshape=1,
        QGemm=1,
        QLinearSoftmax=1,
    )


def test_results_are_those_of_the_annotations():
    """Unoptimised, the file is the float graph with values rounded as annotated; optimised, near that."""
    model = residual_net()
    feeds = annotate(model)
    expected = [_simulate(model, feed) for feed in feeds]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(emit(model), options)
    for feed, want in zip(feeds, expected, strict=True):
        np.testing.assert_allclose(plain.run(None, feed)[0], want, atol=2.01 / 256)
        assert snr(want, run(emit(model), feed)[0]) > 25


def _simulate(model: ir.Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The ONNX reference evaluator, one node at a time, each annotated value rounded as it is annotated."""
    values = dict(feed)

    def rounded(value: ir.Value, array: np.ndarray) -> np.ndarray:
        q = quantization(value)
        return array if q is None else q.dequantize(q.quantize(array))

    for v in model.graph.initializers.values():
        values[v.name] = rounded(v, constant(v))
    for v in model.graph.inputs:
        values[v.name] = rounded(v, values[v.name])
    for node in model.graph:
        proto = ir.to_proto(node)
        outputs = ReferenceEvaluator(proto).run(None, {i: values[i] for i in proto.input if i})
        values |= {v.name: rounded(v, a) for v, a in zip(node.outputs, outputs, strict=True)}
    return values[model.graph.outputs[0].name]


def test_names_are_kept_and_the_model_is_not_changed():
    model = residual_net()
    annotate(model)
    before = ir.to_proto(model).SerializeToString()
    graph = onnx.load_from_string(emit(model)).graph
    assert ir.to_proto(model).SerializeToString() == before
    assert [v.name for v in graph.input] == ["in/größe:0"] and [v.name for v in graph.output] == ["a"]
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    assert made_by["layer/relu:0"] == "DequantizeLinear" and "Relu" not in made_by.values()
    assert len(made_by) == len(graph.node)  # no name twice
    assert emit(model) == emit(model)


def test_file_is_little_more_than_its_weights():
    model = residual_net()
    annotate(model)
    weights = sum(v.const_value.size for v in model.graph.initializers.values())
    data = emit(model)
    assert len(data) - weights < 250 * 13  # 13 layers
    initializers = onnx.load_from_string(data).graph.initializer
    contents = [(i.data_type, tuple(i.dims), i.raw_data) for i in initializers]
    assert len(set(contents)) > len(contents) - 2  # no helper twice


@pytest.mark.parametrize(
    "body, shapes, fused",
    [
        ("y = MatMul(x, w)", {"w": (8, 6)}, "QLinearMatMul"),
        ("m = MatMul(x, w)\n y = Add(m, b)", {"w": (8, 6), "b": (6,)}, "QGemm"),
        ("y = MatMul(x, x2)", {}, "QLinearMatMul"),
        ("y = Mul(x, x2)", {}, "QLinearMul"),
        ("y = Add(x, c)", {"c": (4, 1, 1)}, "QLinearAdd"),
        ("y = GlobalAveragePool(x)", {}, "QLinearGlobalAveragePool"),
        ("y = Sigmoid(x)", {}, "QLinearSigmoid"),
        ("y = LeakyRelu<alpha = 0.1>(x)", {}, "QLinearLeakyRelu"),
        ("y = Transpose<perm = [0, 2, 3, 1]>(x)", {}, "Transpose"),
    ],
)
def test_operators_alone(tmp_path, body, shapes, fused):
    second = ", float[1, 4, 8, 8] x2" if "x2" in body else ""
    arrays = {name: floats(*shape) for name, shape in shapes.items()}
    model = parse(f"(float[1, 4, 8, 8] x{second}) => (y) {{ {body} }}", **arrays)
    feeds = annotate(model)
    data = emit(model)
    onnx.checker.check_model(data, full_check=True)
    operators = optimised(data, tmp_path)
    assert operators[fused] == 1
    assert set(operators) <= {fused, "QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose"}
    assert snr(run(emit(_without_annotations(model)), feeds[0])[0], run(data, feeds[0])[0]) > 24


def _without_annotations(model: ir.Model) -> ir.Model:
    return ir.from_proto(ir.to_proto(model))


def test_an_activation_that_the_range_does_not_imply_leaves_its_layer_integer(tmp_path):
    """A Relu whose output shares the scale of a Concat with negative values."""
    model = parse(
        f"(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {{ c = {CONV % 1}(x, w, b)\n y = Relu(c) }}",
        w=floats(4, 4, 3, 3),
        b=floats(4),
    )
    feeds = annotate(model)
    set_quantization(model.graph.outputs[0], asymmetric(-10, 20))
    data = emit(model)
    assert optimised(data, tmp_path)["QLinearConv"] == 1
    y, expected = run(data, feeds[0])[0], run(emit(_without_annotations(model)), feeds[0])[0]
    assert y.min() == 0 and snr(expected, y) > 30


def test_mixed_precision_rounds_only_what_int8_layers_read(tmp_path):
    model = parse(
        f"""(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {{
            c = {CONV % 1}(x, w, b)
            s = Tanh(c)
            d = {CONV % 1}(s, w2, b2)
            y = Add(s, d)
        }}""",
        w=floats(4, 4, 3, 3),
        b=floats(4),
        w2=floats(4, 4, 3, 3),
        b2=floats(4),
    )
    feeds = annotate(model)
    for node in model.graph:
        is_int8 = node.op_type == "Conv" and node.outputs[0].name == "d"
        set_activation_bits(node, 8 if is_int8 else None)
    for name in ("w", "b"):
        set_quantization(model.graph.initializers[name], None)
    model.graph.outputs[0].meta.clear()
    assert [is_integer(n) for n in model.graph] == [False, False, True, False]
    data = emit(model)
    operators = optimised(data, tmp_path)
    assert operators["QLinearConv"] == 1 and operators["Conv"] == 1 and operators["QuantizeLinear"] == 1
    assert snr(run(emit(_without_annotations(model)), feeds[0])[0], run(data, feeds[0])[0]) > 30


def test_a_float_layer_between_int8_ones_stays_float(tmp_path):
    """ONNX Runtime by itself would quantize its weights again."""
    model = parse(
        f"""(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {{
            c = {CONV % 1}(x, w, b)
            d = {CONV % 1}(c, w2, b2)
            r = Relu(d)
            y = {CONV % 1}(r, w3, b3)
        }}""",
        w=floats(4, 4, 3, 3),
        b=floats(4),
        w2=floats(4, 4, 3, 3),
        b2=floats(4),
        w3=floats(4, 4, 3, 3),
        b3=floats(4),
    )
    annotate(model)
    for node in model.graph:
        set_activation_bits(node, 8 if node.outputs[0].name in "cy" else None)
    for name in ("w2", "b2"):
        set_quantization(model.graph.initializers[name], None)
    operators = optimised(emit(model), tmp_path)
    assert operators["QLinearConv"] == 2 and operators["Conv"] == 1


@pytest.mark.parametrize("dilation", [1, 2])
def test_average_pool_with_dilations_spelt_out(tmp_path, dilation):
    pool = f"AveragePool<kernel_shape = [2, 2], dilations = [{dilation}, {dilation}]>"
    model = parse(f"(float[1, 4, 8, 8] x) => (y) {{ y = {pool}(x) }}")
    feeds = annotate(model)
    data = emit(model)
    assert optimised(data, tmp_path)["QLinearAveragePool"] == (dilation == 1)
    y, expected = run(data, feeds[0])[0], run(emit(_without_annotations(model)), feeds[0])[0]
    assert snr(expected, y) > 30


@pytest.mark.parametrize("kind", ["clusters", "clusters of channels", "clusters in float16"])
@pytest.mark.parametrize("count", [16, 40])
def test_clusters_of_float_weights_cost_nothing_when_running(tmp_path, kind, count):
    """ONNX Runtime looks the weights up once, when it loads the file, and computes exactly what they are."""
    rng = np.random.default_rng(1)
    text = f"(float[1, 8, 8, 8] x) => (float[1, 8, 8, 8] y) {{ c = {CONV % 1}(x, w, b)\n y = Relu(c) }}"
    channels = 8 if kind == "clusters of channels" else 1
    book = Codebook(
        np.sort(rng.normal(size=count)).astype(np.float32),
        rng.integers(0, count, (8, 8, 3, 3)).astype(np.uint8),
        rng.uniform(0.5, 2, channels).astype(np.float32),
        0 if channels > 1 else None,
    )
    model = parse(text, w=book.values(), b=floats(8))
    weight = model.graph.initializers["w"]
    if kind == "clusters in float16":
        half = Quantization(np.ones(1, np.float32), np.zeros(1, np.int32), dtype=ir.DataType.FLOAT16)
        set_quantization(weight, half)
    plain = emit(model)
    set_codebook(weight, book)
    data = emit(model)
    onnx.checker.check_model(data, full_check=True)
    assert optimised(data, tmp_path) == optimised(plain, tmp_path)
    held = 576 * (2 if kind == "clusters in float16" else 4) - (288 if count == 16 else 576)
    assert len(plain) - len(data) > held - 4 * count - 32 - 120
    x = floats(1, 8, 8, 8)
    np.testing.assert_array_equal(run(data, {"x": x})[0], run(plain, {"x": x})[0])


def test_a_look_up_larger_than_the_weights_is_not_written():
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4)
    book = Codebook(np.arange(16, dtype=np.float32), indices, np.ones(1, np.float32))
    model = parse("(float[1, 4] x) => (float[1, 4] y) { y = MatMul(x, w) }", w=book.values())
    plain = emit(model)
    set_codebook(model.graph.initializers["w"], book)
    assert emit(model) == plain


@pytest.mark.parametrize("kind", ["per tensor", "per channel", "float16"])
def test_weights_alone_cost_nothing_when_running(tmp_path, kind):
    """Stored small, and widened once by ONNX Runtime when it loads the file."""
    model = parse(
        f"""(float[1, 8, 8, 8] x) => (float[1, 10] y) {{
            c = {CONV % 1}(x, w, b)
            r = Relu(c)
            f = Reshape(r, shape)
            y = Gemm<transB = 1>(f, v, u)
        }}""",
        w=floats(8, 8, 3, 3),
        b=floats(8),
        v=floats(10, 512),
        u=floats(10),
        shape=np.array([1, 512]),
    )
    plain = emit(model)
    for name in ("w", "v"):
        half = Quantization(np.ones(1, np.float32), np.zeros(1, np.int32), dtype=ir.DataType.FLOAT16)
        int8 = symmetric(constant(model.graph.initializers[name]), 0 if kind == "per channel" else None)
        set_quantization(model.graph.initializers[name], half if kind == "float16" else int8)
    data = emit(model)
    onnx.checker.check_model(data, full_check=True)
    assert optimised(data, tmp_path) == optimised(plain, tmp_path)
    weights = 8 * 8 * 9 + 10 * 512
    assert len(plain) - len(data) > weights * (2 if kind == "float16" else 3) - 1000
    x = floats(1, 8, 8, 8)
    assert snr(run(plain, {"x": x})[0], run(data, {"x": x})[0]) > (60 if kind == "float16" else 30)


def test_requantize_points_are_two_pairs_and_no_node():
    model = parse("(float[1, 4] x) => (float[1, 8] y) { i = Identity(x)\n y = Concat<axis = 1>(i, i) }")
    annotate(model)
    graph = onnx.load_from_string(emit(model)).graph
    assert Counter(node.op_type for node in graph.node) == Counter(QuantizeLinear=3, DequantizeLinear=3, Concat=1)
