"""Each rule of the normalisation, on the smallest graph that shows it, against ONNX Runtime on the
original.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.graph.provenance import origin
from edgecompress.ingest import load
from edgecompress.ingest.passes.batch_in_reshape import baked_batch
from edgecompress.ingest.passes.canonical_convolution import explicit_pads

RNG = np.random.default_rng(7)


def graph(
    nodes: str, inputs: str = "float[1,3,8,8] x", outputs: str = "float y", opset: int = 17, **constants: np.ndarray
) -> onnx.ModelProto:
    """A model from ONNX text; constants by name become initializers."""
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {nodes} }}'
    )
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    return proto


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.opset_import[0].version = min(proto.opset_import[0].version, 26)  # the newest that ONNX Runtime has
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def normalised(proto: onnx.ModelProto, **shapes: tuple[int, ...]) -> ir.Model:
    """The model in canonical form, compared with the original on inputs other than `load`'s own."""
    model = load(proto, input_shapes=shapes or None).model
    feeds = {v.name: floats(*v.shape) for v in model.graph.inputs}
    for expected, found in zip(run(proto, feeds), run(ir.to_proto(model), feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1e-3))
    return model


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def only(model: ir.Model, op_type: str) -> ir.Node:
    (node,) = (n for n in model.graph if n.op_type == op_type)
    return node


def array(value: ir.Value) -> np.ndarray:
    return value.const_value.numpy()


BATCHNORM = dict(s=floats(4), t=floats(4), m=floats(4), v=np.abs(floats(4)) + 0.1)


def test_batchnorm_and_affine_followers_go_into_a_convolution_without_bias():
    model = normalised(
        graph(
            "c = Conv(x, w) n = BatchNormalization(c, s, t, m, v) d = Mul(n, k) y = Sub(d, o)",
            w=floats(4, 3, 3, 3),
            k=floats(1, 4, 1, 1),
            o=floats(4, 1, 1),
            **BATCHNORM,
        )
    )
    assert kinds(model) == ["Conv"]
    conv = only(model, "Conv")
    assert conv.outputs[0].name == "y" and array(conv.inputs[2]).shape == (4,)
    assert {k: list(conv.attributes.get_ints(k)) for k in ("kernel_shape", "strides", "dilations", "pads")} == {
        "kernel_shape": [3, 3],
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
    }


def test_batchnorm_goes_into_a_grouped_transposed_convolution():
    model = normalised(
        graph(
            "c = ConvTranspose<group=2, strides=[2,2], output_padding=[1,1]>(x, w) y = BatchNormalization(c, "
            "s, t, m, v)",
            inputs="float[1,6,5,5] x",
            w=floats(6, 2, 3, 3),
            **BATCHNORM,
        )
    )
    assert kinds(model) == ["ConvTranspose"]


def test_batchnorm_goes_into_matmul_with_bias():
    model = normalised(
        graph(
            "p = MatMul(x, w) q = Add(b, p) y = BatchNormalization(q, s, t, m, v)",
            inputs="float[2,5] x",
            w=floats(5, 4),
            b=floats(4),
            **BATCHNORM,
        )
    )
    assert kinds(model) == ["Gemm"]
    assert only(model, "Gemm").attributes.get_int("transB") == 1


def test_batchnorm_alone_is_mul_and_add():
    model = normalised(graph("y = BatchNormalization(x, s, t, m, v)", inputs="float[1,4,5,5] x", **BATCHNORM))
    assert kinds(model) == ["Mul", "Add"]
    assert array(only(model, "Mul").inputs[1]).shape == (1, 4, 1, 1)


def test_a_value_with_another_reader_is_not_absorbed():
    model = normalised(
        graph("y = Conv(x, w) z = Mul(y, k)", outputs="float y, float z", w=floats(4, 3, 1, 1), k=floats(4, 1, 1))
    )
    assert kinds(model) == ["Conv", "Mul"]


def test_shared_weights_are_copied():
    model = normalised(
        graph(
            "a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, w, b) y = Mul(c, k)",
            w=floats(3, 3, 3, 3),
            b=floats(3),
            k=floats(1, 3, 1, 1),
        )
    )
    first, second = (n for n in model.graph if n.op_type == "Conv")
    assert not {v.name for v in first.inputs[1:]} & {v.name for v in second.inputs[1:]}
    assert not np.array_equal(array(first.inputs[1]), array(second.inputs[1]))  # the second is scaled by k


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(
    "op",
    [
        "Conv<auto_pad=MODE, strides=[2,3]>(x, w)",
        "MaxPool<auto_pad=MODE, kernel_shape=[3,4], strides=[2,3]>(x)",
        "AveragePool<auto_pad=MODE, kernel_shape=[3,4], strides=[2,1]>(x)",
    ],
)
def test_auto_pad_is_worked_out(mode: str, op: str):
    proto = graph(f"y = {op.replace('MODE', repr(mode).replace(chr(39), chr(34)))}", w=floats(4, 3, 3, 4))
    node = next(iter(normalised(proto).graph))
    assert node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    assert len(node.attributes.get_ints("pads")) == 4


def test_same_pads_follow_the_specification():
    node = ir.node("Conv", [ir.Value(name="x")], {"auto_pad": "SAME_UPPER"})
    assert explicit_pads(node, (7, 8), [3, 3], [2, 2]) == [1, 0, 1, 1]


@pytest.mark.parametrize(
    "attributes",
    [
        'auto_pad="SAME_UPPER", strides=[2,2]',
        "output_shape=[17,17], strides=[2,2]",
        "pads=[1,0,1,0]",
        "dilations=[2,2]",
    ],
)
def test_transposed_convolution_padding(attributes: str):
    model = normalised(graph(f"y = ConvTranspose<{attributes}>(x, w)", w=floats(3, 2, 3, 3)))
    node = only(model, "ConvTranspose")
    assert "output_shape" not in node.attributes and len(node.attributes.get_ints("pads")) == 4


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("y = Gemm<alpha=0.5, beta=2.0>(x, w, c)", ["Gemm"]),
        ("y = Gemm<transB=1>(x, wt)", ["Gemm"]),
        ("y = Gemm<transA=1>(x, v)", ["Transpose", "Gemm"]),
        ("y = Gemm(x, w, m)", ["Gemm", "Add"]),
        ("y = Gemm<alpha=2.0, beta=3.0, transB=1>(x, x, s)", ["Transpose", "MatMul", "Mul", "Add"]),
        ("p = MatMul(x, w) y = Add(c, p)", ["Gemm"]),
        ("p = MatMul(x, w) y = Add(p, m)", ["Gemm", "Add"]),
        ("y = MatMul(x, w)", ["Gemm"]),
        ("p = Reshape(x, flat) y = MatMul(p, k)", ["Reshape", "MatMul", "Reshape"]),
    ],
)
def test_fully_connected_forms(nodes: str, expected: list[str]):
    model = normalised(
        graph(
            nodes,
            inputs="float[4,6] x",
            w=floats(6, 3),
            wt=floats(3, 6),
            v=floats(4, 3),
            c=floats(3),
            m=floats(4, 3),
            s=floats(1),
            flat=np.array([24]),
            k=floats(24, 2),
        )
    )
    assert kinds(model) == expected
    for node in model.graph:
        if node.op_type == "Gemm":
            assert array(node.inputs[1]).shape == (3, 4 if "transA" in nodes else 6)
            assert array(node.inputs[2]).shape == (3,)


def test_matmul_of_more_dimensions_keeps_a_bias_of_one_dimension():
    model = normalised(
        graph("p = MatMul(x, w) y = Add(p, b)", inputs="float[2,5,6] x", w=floats(6, 3), b=floats(1, 1, 3))
    )
    assert kinds(model) == ["MatMul", "Add"]
    assert array(only(model, "Add").inputs[1]).shape == (3,)


GELU = {
    "x * 0.5 * (1 + erf(x / sqrt 2))": "d = Div(x, r2) e = Erf(d) f = Add(e, one) g = Mul(x, half) y = Mul(g, f)",
    "0.5 * (x * (1 + erf(x * sqrt 0.5)))": "d = Mul(x, r) e = Erf(d) f = Add(one, e) g = Mul(x, f) y = Mul(half, g)",
    "x * (0.5 + 0.5 * erf)": "d = Mul(r, x) e = Erf(d) f = Mul(e, half) g = Add(f, half) y = Mul(g, x)",
    "tanh, x^3 by Pow": "p = Pow(x, three) q = Mul(p, k) r1 = Add(x, q) s = Mul(r1, c) t = Tanh(s) u = "
    "Add(t, one) h = Mul(x, half) y = Mul(h, u)",
    "tanh, x * (1 + k x^2)": "p = Mul(x, x) q = Mul(p, k) r1 = Add(q, one) s = Mul(r1, x) s2 = Mul(s, c) t = "
    "Tanh(s2) u = Add(t, one) h = Mul(u, half) y = Mul(x, h)",
}


@pytest.mark.parametrize("form", GELU)
def test_gelu_is_recognised_in_any_order_of_factors(form: str):
    model = normalised(
        graph(
            GELU[form],
            r2=np.float32(math.sqrt(2)),
            r=np.float32(math.sqrt(0.5)),
            one=np.float32(1),
            half=np.float32(0.5),
            three=np.float32(3),
            k=np.float32(0.044715),
            c=np.float32(math.sqrt(2 / math.pi)),
        )
    )
    assert kinds(model) == ["Gelu"]
    assert only(model, "Gelu").attributes.get_string("approximate") == ("tanh" if "tanh" in form else "none")


def test_what_is_nearly_gelu_is_not():
    nodes = GELU["x * 0.5 * (1 + erf(x / sqrt 2))"]
    model = normalised(graph(nodes, r2=np.float32(1.5), one=np.float32(1), half=np.float32(0.5)))
    assert "Gelu" not in kinds(model) and "Erf" in kinds(model)


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
        "a = Add(three, x) b = Clip(a, zero, six) c = Div(b, six) y = Mul(c, x)",
        "b = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(b, x)",
        "y = HardSwish(x)",
    ],
)
def test_hardswish_is_recognised(nodes: str):
    model = normalised(graph(nodes, three=np.float32(3), zero=np.float32(0), six=np.float32(6)))
    assert kinds(model) == ["HardSwish"]


@pytest.mark.parametrize("square", ["q = Pow(d, two)", "q = Mul(d, d)"])
@pytest.mark.parametrize("divide", ["n = Div(d, r)", "i = Reciprocal(r) n = Mul(i, d)"])
@pytest.mark.parametrize(("tail", "count"), [("y = Identity(n)", 1), ("k = Mul(n, s) y = Add(b, k)", 1)])
def test_layer_normalization_is_recognised(square: str, divide: str, tail: str, count: int):
    model = normalised(
        graph(
            f"a = ReduceMean<axes=[-1]>(x) d = Sub(x, a) {square} v = ReduceMean<axes=[-1]>(q) w = Add(v, e) "
            "r = Sqrt(w) "
            f"{divide} {tail}",
            inputs="float[2,5,6] x",
            two=np.float32(2),
            e=np.float32(1e-5),
            s=floats(6),
            b=floats(6),
            opset=13,
        )
    )
    assert kinds(model) == ["LayerNormalization"] * count
    assert [array(v).shape for v in only(model, "LayerNormalization").inputs[1:]] == [(6,), (6,)]


def test_identity_dropout_and_dead_nodes_go():
    model = normalised(
        graph(
            "a = Identity(x) b, m = Dropout(a) c = Relu(b) dead = Exp(c) d = Mul(c, one) e = Cast<to=1>(d) y "
            "= Identity(e)",
            one=np.float32(1),
        )
    )
    assert kinds(model) == ["Relu"] and [v.name for v in model.graph.outputs] == ["y"]


def test_shapes_are_computed_beforehand():
    model = normalised(
        graph(
            "s = Shape(x) i = Gather(s, zero) u = Unsqueeze(i, ax) t = Concat<axis=0>(u, rest) f = "
            "Reshape(x, t) q = Squeeze(f, ax) w = Unsqueeze(q, ax) y = Flatten<axis=1>(w)",
            inputs="float[N,3,4] x",
            zero=np.int64(0),
            ax=np.array([0]),
            rest=np.array([-1]),
        ),
        x=(1, 3, 4),
    )
    assert kinds(model) == ["Reshape"]
    node = only(model, "Reshape")
    assert node.inputs[0].name == "x" and array(node.inputs[1]).tolist() == [1, 12]


def test_constants_of_any_size_are_folded():
    model = normalised(
        graph(
            "t = Transpose<perm=[1,0]>(w) u = Mul(t, t) y = MatMul(x, u)", inputs="float[1,300] x", w=floats(400, 300)
        )
    )
    assert kinds(model) == ["Gemm"]


@pytest.mark.parametrize(
    ("nodes", "kind", "bounds"),
    [
        ("a = Relu(x) y = Min(a, six)", "Clip", (0.0, 6.0)),
        ("a = Max(x, one) y = Min(a, six)", "Clip", (1.0, 6.0)),
        ("a = Clip(x, , six) y = Relu(a)", "Clip", (0.0, 6.0)),
        ("y = Clip(x, zero)", "Relu", None),
        ("a = Relu(x) y = Relu(a)", "Relu", None),
        ("a = Clip(x, one, six) y = Clip(a, zero, zero)", "Clip", (0.0, 0.0)),
    ],
)
def test_bounds(nodes: str, kind: str, bounds: tuple[float, float] | None):
    model = normalised(graph(nodes, zero=np.float32(0), one=np.float32(1), six=np.float32(6)))
    assert kinds(model) == [kind]
    if bounds is not None:
        assert tuple(float(array(v)) for v in only(model, "Clip").inputs[1:]) == bounds


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("m = ReduceMax<keepdims=0>(x) l = Sub(m, one) y = Clip(x, l)", "Max"),
        ("l = ReduceMean<keepdims=0>(x) y = Clip(x, , l)", "Min"),
        ("l = ReduceMean<keepdims=0>(x) y = Clip(x, l, one)", "Max"),  # then Min, a Clip of one bound
        ("l = ReduceMax<keepdims=0>(x) h = ReduceMean<keepdims=0>(x) y = Clip(x, l, h)", "Max"),  # crossed
    ],
)
def test_computed_bounds(nodes: str, expected: str):
    found = kinds(normalised(graph(nodes, one=np.float32(1))))
    assert expected in found and found.count("Clip") <= 1


CHOICE = (
    "m = ReduceMean<keepdims=0>(x) b = Greater(m, z) "
    "y = If(b) <then_branch = g1 () => (float[p,q] t) { m1 = MatMul(x, w) t = Relu(m1) }, "
    "else_branch = g2 () => (float[r,s] e) { e = Neg(x) }>"
)


@pytest.mark.parametrize("mode", ["t = Constant<value = bool {1}>()", "t = Constant<value = bool {0}>()", ""])
def test_a_dropout_of_training_drops_nothing(mode: str):
    nodes = f"{mode} a = Mul(x, two) d, m = Dropout(a, half, t) y = Relu(d)"
    proto = graph(nodes, half=np.float32(0.5), two=np.float32(2), **({} if mode else {"t": np.array(True)}))
    found = load(proto)
    (y,) = run(ir.to_proto(found.model), {"x": (x := floats(1, 3, 8, 8))})
    np.testing.assert_allclose(y, np.maximum(2 * x, 0), rtol=1e-6)
    assert ["Dropout that drops" in note for note in found.notes] == [True] * ("{0}" not in mode)


@pytest.mark.parametrize("threshold", [-1e3, 0, 1e3])
@pytest.mark.parametrize("keep", [0, 1])
def test_both_branches_where_data_decides(threshold: float, keep: int):
    nodes = CHOICE.replace("keepdims=0", f"keepdims={keep}")
    proto = graph(nodes, z=np.float32(threshold), w=floats(8, 8), inputs="float[3,8] x")
    model = normalised(proto)
    assert kinds(model).count("Where") == 1 and "If" not in kinds(model)
    assert all(value.uses() for value in model.graph.initializers.values())
    (where,) = [node for node in model.graph if node.op_type == "Where"]
    assert origin(where)[1] == "If"


def test_a_branch_inside_of_a_branch():
    inner = (
        "i = If(c) <then_branch = g3 () => (float[p,q] u) { u = Exp(x) }, "
        "else_branch = g4 () => (float[p,q] v) { v = Abs(x) }>"
    )
    nodes = CHOICE.replace("b =", "c = Less(m, z) b =")
    nodes = nodes.replace("t = Relu(m1)", f"{inner} t = Neg(i)")
    proto = graph(nodes, z=np.float32(0), w=floats(8, 8), inputs="float[3,8] x")
    assert kinds(normalised(proto)).count("Where") == 2


@pytest.mark.parametrize(
    ("other", "inputs"),
    [
        ("e = ReduceSum<keepdims=1>(x)", "float[3,8] x"),
        ("e = ReduceSum<keepdims=1>(x)", "float[3,8] x, bool b"),
        ("e = MatMul(x, x)", "float[3,8] x, bool b"),
    ],
)
def test_branches_that_are_not_alike(other: str, inputs: str):
    nodes = CHOICE.replace("e = Neg(x)", other)
    nodes = nodes.partition("Greater(m, z) ")[2] if "bool" in inputs else nodes
    proto = graph(nodes, inputs=inputs, z=np.float32(0), w=floats(8, 8))
    next(node for node in proto.graph.node if node.op_type == "If").name = "chosen"
    with pytest.raises(UnsupportedModelError, match=r"operator If: 1 \('chosen'\).*--set NAME=VALUE"):
        load(proto)


@pytest.mark.parametrize(
    ("nodes", "expected", "pads"),
    [
        ("p = Pad(x, q) y = Conv<pads=[1,0,0,0]>(p, w)", ["Conv"], [2, 2, 3, 4]),
        ("p = Pad(x, q) y = AveragePool<kernel_shape=[4,5]>(p)", ["AveragePool"], [1, 2, 3, 4]),
        ("p = Pad(x, q) y = AveragePool<kernel_shape=[2,2]>(p)", ["Pad", "AveragePool"], [0, 0, 0, 0]),
        ("r = Relu(x) p = Pad(r, q) y = MaxPool<kernel_shape=[4,5]>(p)", ["Relu", "MaxPool"], [1, 2, 3, 4]),
        ("p = Pad(x, q, lowest) y = MaxPool<kernel_shape=[4,5]>(p)", ["MaxPool"], [1, 2, 3, 4]),
        ("p = Pad(x, q) y = MaxPool<kernel_shape=[4,5]>(p)", ["Pad", "MaxPool"], [0, 0, 0, 0]),
        ('p = Pad<mode="reflect">(x, q) y = Conv(p, w)', ["Pad", "Conv"], [0, 0, 0, 0]),
    ],
)
def test_pad_merges_only_where_it_means_the_same(nodes: str, expected: list[str], pads: list[int]):
    model = normalised(
        graph(
            nodes,
            w=floats(2, 3, 3, 3),
            q=np.array([0, 0, 1, 2, 0, 0, 3, 4]),
            lowest=np.float32(np.finfo(np.float32).min),
        )
    )
    assert kinds(model) == expected
    assert list(list(model.graph)[-1].attributes.get_ints("pads")) == pads


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "size"),
    [
        (3, 2, 1, "9,10"),
        (2, 2, 0, "9,10"),
        (3, 3, 1, "9,10"),
        (2, 2, 1, "7,9"),  # the last window would begin in the padding at the end
        (2, 3, 1, "7,10"),
        (2, 4, 0, "11,14"),
        (3, 4, 1, "6,13"),
    ],
)
@pytest.mark.parametrize(
    "op", ["MaxPool<ATT>(x)", "AveragePool<count_include_pad=0, ATT>(x)", "AveragePool<count_include_pad=1, ATT>(x)"]
)
def test_ceil_mode_becomes_padding(kernel: int, stride: int, pad: int, size: str, op: str):
    pads = [pad] * 4
    attributes = f"kernel_shape={[kernel] * 2}, strides={[stride] * 2}, pads={pads}, ceil_mode=1"
    model = normalised(graph(f"y = {op.replace('ATT', attributes)}", inputs=f"float[1,2,{size}] x"))
    assert list(model.graph)[-1].attributes.get_int("ceil_mode") == 0


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("size", [7, 8, 12])
def test_ceil_mode_with_padding_as_large_as_the_kernel(dilation: int, size: int):
    pool = f"MaxPool<kernel_shape=[3], strides=[4], dilations=[{dilation}], ceil_mode=1>(x)"
    normalised(graph(f"y = {pool}", inputs=f"float[1,2,{size}] x"))


def test_shapes_behind_a_pool_with_ceil_mode_are_those_of_windows_that_exist():
    pool = "p = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>(x)"
    model = normalised(
        graph(f"{pool} s = Shape(p) y = Expand(c, s)  z = Relu(p)", "float[1,2,7,9] x", "float y, float z", c=floats(1))
    )
    assert [tuple(v.shape) for v in model.graph.outputs] == [(1, 2, 4, 5)] * 2


ONE_NODE = {
    "Sum of three": ("y = Sum(x, c, x)", ["Add", "Add"]),
    "Mean": ("y = Mean(x, c)", ["Add", "Mul"]),
    "Max of three": ("y = Max(x, c, h)", ["Max", "Max"]),
    "division by a constant": ("y = Div(x, c)", ["Mul"]),
    "reciprocal": ("e = Exp(x) y = Div(one, e)", ["Exp", "Reciprocal"]),
    "square": ("y = Pow(x, two)", ["Mul"]),
    "square root": ("a = Abs(x) y = Pow(a, half)", ["Abs", "Sqrt"]),
    "inverse square root": ("e = Exp(x) y = Pow(e, minus_half)", ["Exp", "Sqrt", "Reciprocal"]),
    "greater or equal": ("b = GreaterOrEqual(x, c) y = Cast<to=1>(b)", ["Less", "Not", "Cast"]),
    "softplus of large numbers": ("a = Mul(x, big) y = Softplus(a)", None),
    "smallest": ("y = ReduceMin<axes=[1], keepdims=0>(x)", ["Neg", "ReduceMax", "Neg"]),
    "Celu": ("y = Celu<alpha=2.0>(x)", None),
    "Selu": ("y = Selu(x)", None),
    "ThresholdedRelu": ("y = ThresholdedRelu<alpha=0.5>(x)", None),
    "Softsign": ("y = Softsign(x)", None),
    "negative axes": ("y = ReduceSum<keepdims=0>(x, minus)", ["ReduceSum"]),
    "all axes": ("y = ReduceMax(x)", ["ReduceMax"]),
    "expand of a broadcast": ("e = Expand(c, shape) y = Add(x, e)", ["Add"]),
    "slice backwards": ("y = Slice(x, starts, ends, last, steps)", ["Slice"]),
    "negative indices": ("y = Gather<axis=1>(x, picks)", ["Gather"]),
    "and, or": ("a = Greater(x, c) b = Less(x, h) d = And(a, b) e = Or(d, a) y = Cast<to=1>(e)", None),
}


@pytest.mark.parametrize("name", ONE_NODE)
def test_single_operators(name: str):
    nodes, expected = ONE_NODE[name]
    model = normalised(
        graph(
            nodes,
            inputs="float[1,3,4,4] x",
            c=floats(1, 3, 1, 1),
            h=floats(4),
            one=np.float32(1),
            two=np.float32(2),
            half=np.float32(0.5),
            minus_half=np.float32(-0.5),
            big=np.float32(200),
            minus=np.array([-1, 1]),
            shape=np.array([1, 3, 4, 4]),
            starts=np.array([-1]),
            ends=np.array([-100]),
            last=np.array([-1]),
            steps=np.array([-2]),
            picks=np.array([-1, 0]),
        )
    )
    assert expected is None or kinds(model) == expected
    assert all(v.shape.is_static() for n in model.graph for v in n.outputs)


def test_parameters_are_non_negative_constants():
    model = normalised(
        graph(
            "a = ReduceMean<axes=[-1,-2]>(x) s = Softmax(x) t, u = Split<axis=-1>(s) k = Concat<axis=-3>(t, "
            "u) y = Mul(k, a0)",
            inputs="float[1,3,4,4] x",
            outputs="float y, float a",
            a0=floats(1),
        )
    )
    assert array(only(model, "ReduceMean").inputs[1]).tolist() == [2, 3]
    assert only(model, "Softmax").attributes.get_int("axis") == 3
    assert array(only(model, "Split").inputs[1]).tolist() == [2, 2]
    assert only(model, "Concat").attributes.get_int("axis") == 1


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_by_scales_becomes_sizes(mode: str):
    model = normalised(graph(f'y = Resize<mode="{mode}">(x, , scales)', scales=np.array([1, 1, 2, 1.5], np.float32)))
    resize = only(model, "Resize")
    assert len(resize.inputs) == 4 and array(resize.inputs[3]).tolist() == [1, 3, 16, 12]


def test_transposes_at_the_edges_are_kept_and_pairs_cancel():
    model = normalised(
        graph(
            "a = Transpose<perm=[0,3,1,2]>(x) c = Conv(a, w) b = Transpose<perm=[0,2,3,1]>(c) r = Relu(b) "
            "d = Transpose<perm=[0,3,1,2]>(r) e = Transpose<perm=[0,2,3,1]>(d) y = "
            "Transpose<perm=[0,1,2,3]>(e)",
            inputs="float[1,8,8,3] x",
            w=floats(4, 3, 3, 3),
        )
    )
    assert kinds(model) == ["Transpose", "Conv", "Transpose", "Relu"]


def test_a_transpose_of_dimensions_of_size_one_is_a_reshape():
    model = normalised(graph("y = Transpose<perm=[1,0,2]>(x)", inputs="float[1,5,6] x"))
    assert kinds(model) == ["Reshape"]


@pytest.mark.parametrize("opset", [13, 15, 17, 18, 20, 21, 22, 24, 26, onnx.defs.onnx_opset_version()])
def test_every_opset_becomes_21(opset: int):
    reduce = "ReduceMean<axes=[2,3]>(r)" if opset < 18 else "ReduceMean(r, axes)"
    model = normalised(
        graph(
            f"c = Conv(x, w) r = Relu(c) a = {reduce} m = ReduceSum<keepdims=0>(a, axes) y = Softmax(m)",
            opset=opset,
            w=floats(4, 3, 3, 3),
            axes=np.array([2, 3]),
        )
    )
    assert dict(model.opset_imports) == {"": 21}
    assert kinds(model) == ["Conv", "Relu", "ReduceMean", "ReduceSum", "Softmax"]


OLD = {
    "convolutions": ("c = Conv(x, w) n = BatchNormalization(c, s, t, m, v) y = Relu(n)", (7, 9, 11, 12)),
    "shapes": ("a = Unsqueeze<axes=[1]>(x) b = Relu(a) c = Squeeze<axes=[1]>(b) y = Flatten(c)", (7, 11)),
    "reductions": ("r = ReduceSum<axes=[2,3]>(x) y = Softmax(r)", (7, 11, 12)),
    "softmax over all that follows": ("y = Softmax<axis=1>(x)", (7, 12)),
    "attributes that are inputs today": (
        "p = Pad<pads=[0,0,1,1,0,0,1,1]>(x) q = Slice<starts=[1], ends=[4], axes=[2]>(p) y = Clip<min=-0.5>(q)",
        (7, 9),
    ),
    "Upsample": ('y = Upsample<mode="nearest">(x, scales)', (9,)),
    "Upsample of opset 7": ('y = Upsample<mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]>(x)', (7, 8)),
    "Resize of opset 10": ('y = Resize<mode="linear">(x, scales)', (10,)),
}


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [pytest.param(nodes, opset, id=f"{n}, {opset}") for n, (nodes, opsets) in OLD.items() for opset in opsets],
)
def test_older_opsets_are_upgraded(nodes: str, opset: int):
    constants = {"w": floats(4, 3, 3, 3), **BATCHNORM, "scales": np.array([1, 1, 2, 2], np.float32)}
    normalised(graph(nodes, opset=opset, **{k: a for k, a in constants.items() if f" {k}" in nodes}))


@pytest.mark.parametrize("inputs", ["[-1,3,8,8]", "[-1,3,-1,-1]", "[-1,3,N,8]", "[-1,-1,8,8]", "[1,3,8,-1]"])
def test_a_dimension_of_minus_one_is_open(inputs: str):
    proto = graph("y = Conv(x, w)", "float[1,3,8,8] x", w=floats(4, 3, 3, 3))
    for dimension, text in zip(proto.graph.input[0].type.tensor_type.shape.dim, inputs.strip("[]").split(",")):
        dimension.dim_param = text
        if text != "N":
            dimension.dim_value = int(text)
    open_ = [i for i, text in enumerate(inputs.strip("[]").split(",")) if i and text in ("-1", "N")]
    if open_:
        with pytest.raises(InputError, match=f"besides the batch: {open_[0]} ") as refusal:
            load(proto)
        assert "N" in str(refusal.value) and "-1" not in str(refusal.value)
    assert tuple(normalised(proto, x=(1, 3, 8, 8)).graph.inputs[0].shape) == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("opset", "nodes"),
    [
        (24, "y = Swish(x)"),
        (23, "y = RMSNormalization(x, w)"),
        (21, "y = GroupNormalization<num_groups=3>(x, s, s)"),
        (18, "y = Mish(x)"),
    ],
)
def test_newer_operators_are_written_out(opset: int, nodes: str):
    normalised(graph(nodes, opset=opset, w=floats(8), s=floats(3)))


def test_float16_and_float64_are_computed_in_float32():
    for dtype, name in ((np.float16, "float16"), (np.float64, "double")):
        proto = graph(
            "a = MatMul(x, w) y = Add(a, b)",
            inputs=f"{name}[2,5] x",
            outputs=f"{name} y",
            w=floats(5, 4).astype(dtype),
            b=floats(4).astype(dtype),
        )
        found = load(proto)
        assert kinds(found.model) == ["Gemm"]
        assert found.model.graph.inputs[0].dtype == found.model.graph.outputs[0].dtype == ir.DataType.FLOAT
        x = floats(2, 5)
        (expected,), (got,) = run(proto, {"x": x.astype(dtype)}), run(ir.to_proto(found.model), {"x": x})
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-2 if dtype == np.float16 else 1e-6)
        assert bool(found.notes) == (dtype == np.float16)


def test_uint8_pixels_are_taken_as_float():
    found = load(graph("c = Cast<to=1>(x) y = Conv(c, w)", inputs="uint8[1,3,8,8] x", w=floats(2, 3, 3, 3)))
    assert kinds(found.model) == ["Conv"] and "uint8" in found.notes[0]


def test_a_batch_written_into_reshapes_becomes_one():
    proto = graph(
        "c = Conv(x, w) r = Reshape(c, s) y = MatMul(r, k)",
        inputs="float[N,3,8,8] x",
        w=floats(2, 3, 3, 3),
        s=np.array([4, -1]),
        k=floats(72, 5),
    )
    found = load(proto)
    assert tuple(found.model.graph.outputs[0].shape) == (1, 5)
    x = floats(1, 3, 8, 8)
    (expected,) = run(proto, {"x": np.repeat(x, 4, axis=0)})
    (got,) = run(ir.to_proto(found.model), {"x": x})
    np.testing.assert_allclose(got, expected[:1], rtol=0, atol=1e-5)
    assert any("batch size 4" in note for note in found.notes)


def test_baked_batch_is_the_most_frequent_first_dimension():
    model = ir.from_proto(
        graph("a = Reshape(x, s) b = Reshape(a, t) y = Reshape(b, t)", s=np.array([2, -1]), t=np.array([4, -1]))
    )
    assert baked_batch(model) == 4


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers_are_kept(op: str, gates: int):
    extra = ", linear_before_reset=1" if op == "GRU" else ""
    model = normalised(
        graph(
            f"o, h = {op}<hidden_size=5{extra}>(x, w, r, b) y = Squeeze(o, one)",
            inputs="float[7,1,6] x",
            outputs="float y, float h",
            w=floats(1, gates * 5, 6),
            r=floats(1, gates * 5, 5),
            b=floats(1, gates * 10),
            one=np.array([1]),
        )
    )
    assert kinds(model) == [op, "Reshape"]
    assert only(model, op).attributes.get_string("direction") == "forward"


def test_names_of_any_characters_survive():
    names = {"x": "серв/ing:0", "m": "模型;a/b:1", "y": "out put\"'\\:0"}
    proto = graph("m = Conv(x, w) y = Relu(m)", w=floats(4, 3, 3, 3))
    for node in proto.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    proto.graph.input[0].name, proto.graph.output[0].name = names["x"], names["y"]
    model = load(proto).model
    assert model.graph.inputs[0].name == names["x"] and model.graph.outputs[0].name == names["y"]
    assert next(iter(model.graph)).outputs[0].name == names["m"]


def test_an_input_that_is_an_output_and_a_value_that_is_two():
    proto = graph("a = Relu(x) y = Identity(a) z = Identity(a) i = Identity(x)", outputs="float y, float z, float i")
    model = normalised(proto)
    assert [v.name for v in model.graph.outputs] == ["y", "z", "i"]


def test_an_input_that_is_an_output_keeps_its_name():
    proto = graph("y = Relu(x)", outputs="float x, float y, float x")
    model = normalised(proto)
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert [v.name for v in model.graph.outputs] == ["x_output", "y", "x_output_1"]
    assert "output 'x' is the input of that name; in the artifacts it is called 'x_output'" in load(proto).notes


@pytest.mark.parametrize("factor", [2.0, 1.0, -1.0, [2.0, 1.0, 1.0, 1.0]])
def test_every_constant_factor_reaches_the_weights(factor: float | list[float]):
    """A factor of all channels alike is worked in as those of single channels are; a factor of one changes nothing."""
    scale = np.broadcast_to(np.array(factor, np.float32).reshape(-1, 1, 1), (4, 1, 1)).copy()
    weight = floats(4, 3, 2, 2)
    proto = graph("c = Conv(x, w, b) d = Mul(c, k) y = Add(d, o)", w=weight, b=floats(4), k=scale, o=floats(4, 1, 1))
    conv = only(normalised(proto), "Conv")
    np.testing.assert_array_equal(array(conv.inputs[1]), weight * scale[..., None])


def test_a_batch_in_reshapes_is_said_and_becomes_one():
    body = "r = Reshape(x, s) f = Flatten(x) y = Concat<axis=1>(r, f)"
    loaded = load(graph(body, inputs="float[N,3,8] x", s=np.array([4, 24])))
    assert any("batch size 4" in note for note in loaded.notes)
    assert loaded.model.graph.outputs[0].shape == (1, 48)


def test_shapes_that_do_not_fit_are_an_error_where_no_reshape_has_a_batch():
    body = "f = Flatten(x) y = Concat<axis=1>(f, k)"
    with pytest.raises(InputError, match="doesn't fit its inputs"):
        load(graph(body, inputs="float[N,3,8] x", k=floats(4, 24)))


@pytest.mark.parametrize("indices", [[[2], [0], [2]], [[[1], [2]]], [[1]]])
def test_gather_nd_of_one_coordinate_is_gather(indices: list):
    model = normalised(graph("y = GatherND(x, i)", inputs="float[3,4,5] x", i=np.array(indices)))
    assert kinds(model) == ["Gather"]
    assert array(only(model, "Gather").inputs[1]).shape == np.shape(indices)[:-1]


@pytest.mark.parametrize(("scale", "by"), [(1.5, "sizes"), (1.3, "scales"), (0.5, "sizes"), (0.7, "scales")])
def test_resize_keeps_a_scale_that_its_sizes_do_not_say(scale: float, by: str):
    """8 pixels times 1.3 are 10: the scale from sizes would be 1.25."""
    body = 'y = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(x, , s)'
    model = normalised(graph(body, s=np.array([1, 1, scale, scale], np.float32)))
    present = [v is not None for v in only(model, "Resize").inputs[2:]]
    assert present == ([False, True] if by == "sizes" else [True])


def test_an_identity_between_input_and_output_stays_the_users_node():
    proto = graph("y = Identity(x) z = Relu(x)", outputs="float y, float z")
    proto.graph.node[0].name = "mine"
    model = normalised(proto)
    assert kinds(model) == ["Identity", "Relu"]
    assert only(model, "Identity").name == "mine"


@pytest.mark.parametrize(("end", "step", "kept"), [(100, 1, []), (8, 2, ["Slice"]), (7, 1, ["Slice"])])
def test_a_slice_of_everything_goes(end: int, step: int, kept: list[str]):
    parameters = {"s": [0], "e": [end], "a": [2], "d": [step]}
    arrays = {name: np.array(value) for name, value in parameters.items()}
    assert kinds(normalised(graph("r = Relu(x) y = Slice(r, s, e, a, d)", **arrays))) == ["Relu", *kept]


HALVED = "h2 = Mul(s, half) r = Add(h2, v) o = Identity(r)"


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        (  # as often as a dimension says, with a value from outside
            "s = Shape(x) n = Gather(s, one) y = Loop(n, yes, x) <body = b (int64 i, bool c, float[1,3,8,8] v) => "
            "(bool d, float[1,3,8,8] w) { d = Identity(c) f = Cast<to=1>(i) a = Add(v, f) w = Mul(a, x) }>",
            {"one": np.array(1), "yes": np.array(True)},
            {"Add": 2, "Mul": 3},
        ),
        (
            "n = Size(x) b = Greater(n, k) z = If(b) <then_branch = g1 () => (float t) { t = Relu(x) }, "
            "else_branch = g2 () => (float e) { e = Neg(x) }> y = Exp(z)",
            {"k": np.array(5)},
            {"Relu": 1, "Exp": 1},
        ),
        (
            "h, y = Scan(z, x) <num_scan_inputs=1, scan_input_axes=[2], scan_input_directions=[1], "
            "scan_output_axes=[2], scan_output_directions=[1], "
            f"body = b (float[1,3,8] s, float[1,3,8] v) => (float[1,3,8] r, float[1,3,8] o) {{ {HALVED} }}>",
            {"z": np.zeros((1, 3, 8), np.float32), "half": np.float32(0.5)},
            {"Gather": 8, "Add": 7, "Concat": 1},
        ),
        (  # without a condition, with results of each step, and a branch inside
            "h, y = Loop(n, , z) <body = b (int64 i, bool c, float[1,3,8] s) => (bool d, float[1,3,8] r, "
            "float[1,3,8] o) { d = Constant<value=bool {1}>() v = Gather<axis=2>(x, i) r = Add(s, v) q = Equal(i, i) "
            "o = If(q) <then_branch = g1 () => (float t) { t = Relu(r) }, "
            "else_branch = g2 () => (float e) { e = Neg(r) }> }>",
            {"n": np.array(4), "z": np.zeros((1, 3, 8), np.float32)},
            {"Gather": 4, "Relu": 4},
        ),
    ],
)
def test_control_flow_that_is_known_is_written_out(nodes: str, constants: dict, expected: dict) -> None:
    found = kinds(normalised(graph(nodes, **constants)))
    assert {kind: found.count(kind) for kind in expected} == expected and not {"Loop", "If", "Scan"} & {*found}


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_with_the_batch_first(kind: str, gates: int) -> None:
    """Against the same layer between Transposes, since ONNX Runtime has no such kernels."""
    constants = {"w": floats(1, gates * 5, 4), "r": floats(1, gates * 5, 5)}
    inputs, empty = "float[2,7,4] x, float[2,1,5] h", "w, r, , "
    given = load(
        graph(f"y, s = {kind}<hidden_size=5, layout=1>(x, {empty}, h)", inputs, "float y, float s", **constants)
    )
    written = graph(
        f"t = Transpose<perm=[1,0,2]>(x) i = Transpose<perm=[1,0,2]>(h) u, v = {kind}<hidden_size=5>(t, {empty}, i) "
        "y = Transpose<perm=[2,0,1,3]>(u) s = Transpose<perm=[1,0,2]>(v)",
        inputs,
        "float y, float s",
        **constants,
    )
    feeds = {"x": floats(2, 7, 4), "h": floats(2, 1, 5)}
    for expected, found in zip(run(written, feeds), run(ir.to_proto(given.model), feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_convolution_with_computed_weights_is_a_product() -> None:
    nodes = "w = Relu(z) b = ReduceMax<axes=[1, 2, 3], keepdims=0>(z) y = Conv<strides=[2, 1], pads=[1, 0, 0, 1], "
    model = normalised(
        graph(nodes + "dilations=[1, 2], group=3>(x, w, b)", inputs="float[1,3,8,8] x, float[6,1,3,2] z")
    )
    assert "Conv" not in kinds(model) and "MatMul" in kinds(model)
    bias = normalised(
        graph("b = Relu(z) y = Conv(x, w, b)", inputs="float[1,3,8,8] x, float[4] z", w=floats(4, 3, 3, 3))
    )
    assert kinds(bias).count("Conv") == 1 and "Add" in kinds(bias)


@pytest.mark.parametrize(
    "nodes",
    [
        "e = GatherElements <axis = 1> (table, places) c = Cast <to = 1> (e) y = Add(x, c)",  # what BERT's export has
        "t, p = TopK <axis = 1> (floats, k) q = Cast <to = 1> (p) s = Add(t, q) y = Mul(x, s)",
        "a, b = Split <axis = 1> (eight, halves) s = Mul(a, b) y = Mul(x, s)",
    ],
)
def test_constants_that_the_reference_evaluator_leaves_are_computed(nodes: str):
    constants = {
        "table": np.arange(9).reshape(1, 9), "places": np.array([[3, -1, 2, 8]]), "floats": floats(1, 9),
        "k": np.array([4]), "eight": floats(1, 8), "halves": np.array([4, 4]),
    }  # fmt: skip
    used = {
        n: a for n, a in constants.items() if n in nodes.replace(",", " ").replace("(", " ").replace(")", " ").split()
    }
    proto = graph(nodes, inputs="float[1,4] x", **used)
    loaded = load(proto).model
    x = {"x": floats(1, 4)}
    assert len(list(loaded.graph)) == 1
    np.testing.assert_array_equal(run(ir.to_proto(loaded), x)[0], run(proto, x)[0])
