"""The TFLite emitter against NumPy (layouts), ONNX Runtime (results) and the FlatBuffer itself (structure)."""

from __future__ import annotations

import doctest

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgecompress.compress.quantize.dynamic import to_float16
from edgecompress.emit.tflite import emit
from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import Quantization, set_quantization
from edgecompress.graph.fusion import layers
from edgecompress.lowering import context, forms
from edgecompress.operators import normalisation, resizing

BUILTINS = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
RNG = np.random.default_rng(0)


def model(text: str, **arrays: np.ndarray) -> ir.Model:
    """ONNX text plus initializers by name, shapes inferred."""
    import onnx

    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 21]> agraph {text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def run_onnx(m: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(ir.to_proto(m).SerializeToString()).run(None, feeds)


def run_tflite(m: ir.Model, feeds: dict[str, np.ndarray], reference: bool = False) -> list[np.ndarray]:
    emitted = emit(m)
    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=emitted.data, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    for detail, io in zip(interpreter.get_input_details(), emitted.inputs):
        interpreter.set_tensor(detail["index"], io.to_device(feeds[io.name]))
    interpreter.invoke()
    return [
        io.from_device(interpreter.get_tensor(detail["index"]))
        for detail, io in zip(interpreter.get_output_details(), emitted.outputs)
    ]


def agree(m: ir.Model, *, reference: bool = False) -> None:
    feeds = {v.name: RNG.standard_normal([int(n) for n in v.shape]).astype(np.float32) for v in m.graph.inputs}
    for expected, got in zip(run_onnx(m, feeds), run_tflite(m, feeds, reference), strict=True):
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1e-6)


def kinds(data: bytes) -> list[str]:
    parsed = schema.ModelT.InitFromPackedBuf(data, 0)
    return [BUILTINS[parsed.operatorCodes[o.opcodeIndex].builtinCode] for o in parsed.subgraphs[0].operators]


# ---- layouts ----


@pytest.mark.parametrize("module", [forms, context, normalisation])
def test_examples_in_docstrings(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0 and failed == 0


def in_form(array: np.ndarray, form: forms.Form) -> np.ndarray:
    return array.transpose(forms.axes(form)).reshape(forms.shape_in(form, array.shape))


@given(st.data())
def test_a_reshape_in_any_form_keeps_every_element_in_its_place(data):
    """forms.reshaped promises: the output's elements lie in memory exactly as the input's did."""
    before = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5), label="before")
    count = int(np.prod(before))
    after, rest = [], count
    while rest > 1:
        factor = data.draw(st.sampled_from([n for n in range(2, rest + 1) if rest % n == 0]))
        after.append(factor)
        rest //= factor
    for _ in range(data.draw(st.integers(0, 2))):
        after.insert(data.draw(st.integers(0, len(after))), 1)
    after = after or [1]
    form = tuple(data.draw(st.permutations(range(len(before))), label="form"))
    result = forms.reshaped(before, after, form)
    x = np.arange(count).reshape(before)
    if result is None:
        moved = in_form(x, form).ravel()
        same = [f for f in _permutations(len(after)) if np.array_equal(in_form(x.reshape(after), f).ravel(), moved)]
        assert not same  # there really is no form in which nothing moves
    else:
        assert np.array_equal(in_form(x.reshape(after), result).ravel(), in_form(x, form).ravel())


@pytest.mark.parametrize("dims", [(2, 3), (1, 3, 4), (2, 1, 3), (1, 1, 1), (2, 1, 3, 1), (1, 3, 4, 5)])
def test_forms_are_transpositions_of_arrays(dims):
    """Every function of forms against NumPy: what it says of a form is true of an array in that form."""
    x, rank = np.arange(int(np.prod(dims))).reshape(dims), len(dims)
    for form in _permutations(rank):
        stored = in_form(x, form)
        assert forms.shape_in(form, dims) == stored.shape
        for other in _permutations(rank):
            same = np.array_equal(stored.ravel(), in_form(x, other).ravel())
            assert forms.same_order(form, other, dims) == same
            moved = forms.transposed(form, other)
            assert np.array_equal(in_form(x.transpose(other), moved), stored)
        for axis in range(rank):
            gone = in_form(x.sum(axis), forms.reduced(form, [axis]))
            assert np.array_equal(gone, stored.sum(form.index(axis)))
        for lower in range(1, rank):
            operand = x[(0,) * (rank - lower)]
            broadcast = stored + in_form(operand, forms.operand_form(form, rank, lower))
            assert np.array_equal(broadcast, in_form(x + operand, form))


def _permutations(rank: int) -> list[tuple[int, ...]]:
    import itertools

    return list(itertools.permutations(range(rank)))


@given(st.lists(st.integers(1, 4), min_size=2, max_size=6), st.randoms())
def test_transpose_merging_keeps_the_result(dims, random):
    permutation = list(range(len(dims)))
    random.shuffle(permutation)
    groups = context._merged(tuple(dims), permutation)
    x = np.arange(int(np.prod(dims))).reshape(dims)
    sizes = [int(np.prod([dims[a] for a in g])) for g in groups]
    order = sorted(range(len(groups)), key=lambda i: groups[i])
    merged = x.reshape([sizes[g] for g in order]).transpose([order.index(g) for g in range(len(groups))])
    assert np.array_equal(merged.ravel(), x.transpose(permutation).ravel())


def test_transposes_that_only_undo_the_layout_cost_nothing():
    """What tf2onnx leaves at the edges: NHWC in, NCHW inside, NHWC out."""
    m = model(
        """(float[1,8,6,3] x) => (float[1,8,6,4] y) {
            a = Transpose<perm=[0,3,1,2]>(x)
            b = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1], dilations=[1,1], group=1>(a, w, bias)
            c = Relu(b)
            y = Transpose<perm=[0,2,3,1]>(c)
        }""",
        w=RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
        bias=RNG.standard_normal(4).astype(np.float32),
    )
    assert kinds(emit(m).data) == ["CONV_2D"]
    assert emit(m).inputs[0].form == (0, 1, 2, 3)
    agree(m)


def test_flatten_into_gemm_permutes_the_weights_instead_of_the_image():
    m = model(
        """(float[1,3,4,5] x) => (float[1,7] y) {
            a = Relu(x)
            c = Conv<kernel_shape=[1,1], pads=[0,0,0,0], strides=[1,1], dilations=[1,1], group=1>(a, w, b)
            shape = Constant<value_ints=[1,40]>()
            f = Reshape(c, shape)
            y = Gemm<transB=1>(f, g, h)
        }""",
        w=RNG.standard_normal((2, 3, 1, 1)).astype(np.float32),
        b=RNG.standard_normal(2).astype(np.float32),
        g=RNG.standard_normal((7, 40)).astype(np.float32),
        h=RNG.standard_normal(7).astype(np.float32),
    )
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    m = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(m).model
    assert kinds(emit(m).data) == ["RELU", "CONV_2D", "FULLY_CONNECTED"]
    agree(m)


# ---- padding ----


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    groups=st.sampled_from([(4, 8, 1), (4, 8, 4), (4, 4, 4), (4, 6, 2)]),
    reference=st.booleans(),
)
def test_convolutions_of_every_shape(size, kernel, strides, dilations, pads, groups, reference):
    channels, out_channels, group = groups
    for n, k, d, before, after in zip(size, kernel, dilations, pads[:2], pads[2:]):
        assume(n + before + after >= (k - 1) * d + 1)
    m = model(
        f"""(float[1,{channels},{size[0]},{size[1]}] x) => (float[1,{out_channels},oh,ow] y) {{
            y = Conv<kernel_shape=[{kernel[0]},{kernel[1]}], strides=[{strides[0]},{strides[1]}], group={group},
                dilations=[{dilations[0]},{dilations[1]}], pads=[{pads[0]},{pads[1]},{pads[2]},{pads[3]}]>(x, w, b)
        }}""",
        w=RNG.standard_normal((out_channels, channels // group, *kernel)).astype(np.float32),
        b=RNG.standard_normal(out_channels).astype(np.float32),
    )
    concrete(m)
    agree(m, reference=reference)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    group=st.sampled_from([1, 2]),
)
def test_transposed_convolutions_of_every_shape(size, kernel, strides, pads, extra, group):
    extra = tuple(min(e, s - 1) for e, s in zip(extra, strides))
    out = [(n - 1) * s + k + e - a - b for n, s, k, e, a, b in zip(size, strides, kernel, extra, pads[:2], pads[2:])]
    assume(min(out) >= 1)
    m = model(
        f"""(float[1,2,{size[0]},{size[1]}] x) => (float[1,6,{out[0]},{out[1]}] y) {{
            y = ConvTranspose<kernel_shape=[{kernel[0]},{kernel[1]}], strides=[{strides[0]},{strides[1]}],
                output_padding=[{extra[0]},{extra[1]}], group={group},
                pads=[{pads[0]},{pads[1]},{pads[2]},{pads[3]}]>(x, w, b)
        }}""",
        w=RNG.standard_normal((2, 6 // group, *kernel)).astype(np.float32),
        b=RNG.standard_normal(6).astype(np.float32),
    )
    agree(m)


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["MaxPool", "AveragePool"]),
    counted=st.booleans(),
    size=st.tuples(st.integers(4, 8), st.integers(4, 8)),
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
)
def test_pools_of_every_shape(kind, counted, size, kernel, strides, pads):
    count = f", count_include_pad={int(counted)}" if kind == "AveragePool" else ""
    m = model(
        f"""(float[1,3,{size[0]},{size[1]}] x) => (float[1,3,oh,ow] y) {{
            y = {kind}<kernel_shape=[{kernel[0]},{kernel[1]}], strides=[{strides[0]},{strides[1]}],
                pads=[{pads[0]},{pads[1]},{pads[2]},{pads[3]}]{count}>(x)
        }}"""
    )
    concrete(m)
    agree(m)


def concrete(m: ir.Model) -> None:
    """Replace the symbolic output shape of the text by what ONNX Runtime computes."""
    feeds = {v.name: np.zeros([int(n) for n in v.shape], np.float32) for v in m.graph.inputs}
    for value, array in zip(m.graph.outputs, run_onnx(m, feeds), strict=True):
        value.shape = ir.Shape(array.shape)


@given(st.integers(1, 12), st.integers(1, 24))
@settings(deadline=None, max_examples=40)
def test_nearest_resize_picks_the_rows_that_the_reference_kernel_picks(n, out):
    """resizing.nearest_indices decides whether TFLite's own operator may be used: it must match the kernel."""
    for align, half in ((False, False), (False, True), (True, False)):
        x = np.arange(n, dtype=np.float32).reshape(1, n, 1, 1)
        buffer = context.FlatBuffer()
        ctx = context.Context(buffer)
        source = ctx.temporary("x", x.shape, ir.DataType.FLOAT)
        target = ctx.temporary("y", (1, out, 1, 1), ir.DataType.FLOAT)
        options = {"alignCorners": align, "halfPixelCenters": half}
        ctx.op("RESIZE_NEAREST_NEIGHBOR", [source, ctx.ints([out, 1])], [target], **options)
        data = buffer.finish([("x", source)], [("y", target)], "test")
        interpreter = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        picked = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).ravel().astype(int)
        assert picked.tolist() == resizing.nearest_indices(n, out, align, half).tolist()


# ---- the file ----


@pytest.fixture(scope="module")
def small() -> ir.Model:
    return model(
        """(float[1,3,8,8] "in:0") => (float[1,4,8,8] "out/ü") {
            "out/ü" = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1], dilations=[1,1], group=1>("in:0", w, b)
        }""".replace('"in:0"', "in_0").replace('"out/ü"', "out_u"),
        w=RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
        b=RNG.standard_normal(4).astype(np.float32),
    )


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_constant_data_is_aligned_to_16_bytes(small):
    data = emit(small).data
    parsed = schema.Model.GetRootAs(data, 0)
    offsets = []
    for i in range(parsed.BuffersLength()):
        buffer = parsed.Buffers(i)
        if buffer.DataLength():
            offsets.append(address(buffer.DataAsNumpy()) - address(np.frombuffer(data, np.uint8)))
    assert len(offsets) >= 3 and all(offset % 16 == 0 for offset in offsets)


def test_signature_version_and_names_are_filled_in(small):
    small.graph.inputs[0].name, small.graph.outputs[0].name = "in:0", "out/ü"
    emitted = emit(small)
    interpreter = Interpreter(model_content=emitted.data)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["in:0"], "outputs": ["out/ü"]}}
    parsed = schema.ModelT.InitFromPackedBuf(emitted.data, 0)
    names = {m.name: bytes(parsed.buffers[m.buffer].data).rstrip(b"\0") for m in parsed.metadata}
    assert names == {b"min_runtime_version": b"2.3.0"}
    assert (emitted.inputs[0].form, emitted.inputs[0].shape) == ((0, 2, 3, 1), (1, 8, 8, 3))


def test_every_fault_is_in_one_message():
    m = model(
        """(float[1,3,8,8] x) => (float[1,3,4,4] y, float[1,3] z) {
            y, i = MaxPool<kernel_shape=[3,3], strides=[2,2], dilations=[1,1], pads=[1,1,0,0]>(x)
            z = Det(x)
            u = GlobalLpPool(x)
        }"""
    )
    with pytest.raises(UnsupportedModelError, match=r"Det.*GlobalLpPool"):
        emit(m)
    for node in list(m.graph)[1:]:
        node.outputs[0].replace_all_uses_with(m.graph.inputs[0], replace_graph_outputs=True)
        m.graph.remove(node, safe=True)
    with pytest.raises(UnsupportedModelError, match=r"MaxPool .*2 outputs"):
        emit(m)


def test_a_target_without_an_operator_is_told_which_and_where(small):
    with pytest.raises(UnsupportedModelError, match="CONV_2D"):
        emit(small, operators=["ADD"])


# ---- int8 ----


def quantized(m: ir.Model, **samples: np.ndarray) -> ir.Model:
    from edgecompress.compress.quantize import quantize
    from edgecompress.evaluate.dataset import load_data
    from edgecompress.recipe import Recipe

    recipe = Recipe()
    return quantize(m, load_data(samples, m.graph.inputs, recipe.preprocess), recipe.quantize, integer_only=True).model


def test_int8_sums_are_right_in_the_reference_kernels_too():
    """LiteRT's reference SUM forgets to rescale int8; what is written in its place must not."""
    m = model("(float[1,5,6] x) => (float[1,1,6] y) { y = ReduceSum<keepdims=1>(x, axes) }", axes=np.array([1]))
    x = RNG.standard_normal((16, 5, 6)).astype(np.float32)
    found = quantized(m, x=x)
    for reference in (False, True):
        got = run_tflite(found, {"x": x[:1]}, reference)[0]
        assert np.abs(got - x[:1].sum(1, keepdims=True)).max() < 0.1


def test_a_single_slope_is_leaky_relu():
    """tflite-runtime 2.14 reads past the end of a PRELU slope of one element."""
    m = model("(float[1,4,3,3] x) => (float[1,4,3,3] y) { y = PRelu(x, s) }", s=np.float32([0.25]))
    assert kinds(emit(m).data) == ["LEAKY_RELU"]
    agree(m)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers_compute_on_int8_once_unrolled(kind, direction):
    from edgecompress.operators.rewriting import integer_parts

    gates, d = {"LSTM": 4, "GRU": 3}[kind], 2 if direction == "bidirectional" else 1
    m = model(
        f"""(float[6,1,5] x) => (float[6,{d},1,4] y) {{
            y = {kind}<hidden_size=4, direction="{direction}">(x, w, r, b)
        }}""",
        w=RNG.standard_normal((d, gates * 4, 5)).astype(np.float32),
        r=RNG.standard_normal((d, gates * 4, 4)).astype(np.float32),
        b=RNG.standard_normal((d, gates * 8)).astype(np.float32),
    )
    agree(m)
    x = RNG.standard_normal((32, 6, 1, 5)).astype(np.float32)
    exact, got = run_onnx(m, {"x": x[0]})[0], run_tflite(quantized(integer_parts(m.clone()), x=x), {"x": x[0]}, True)[0]
    assert 10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum()) > 20


# ---- what surrounds a layer ----

CONVOLUTION = "Conv<kernel_shape=[1,1], pads=[0,0,0,0], strides=[1,1], dilations=[1,1], group=1>"


def floats(*dims: int) -> np.ndarray:
    return RNG.standard_normal(dims).astype(np.float32)


@pytest.mark.parametrize(
    ("low", "high", "fused"),
    [(-1, 1, "RELU_N1_TO_1"), (0, 6, "RELU6"), (0, None, "RELU"), (-1, 2, None), (-2, 1, None), (0, 5, None)],
)
def test_a_convolution_takes_the_clips_that_tflite_can_fuse(low: float, high: float | None, fused: str | None):
    bounds = {"low": np.array(low, np.float32)} | ({} if high is None else {"high": np.array(high, np.float32)})
    m = model(
        f"""(float[1,3,4,5] x) => (float[1,4,4,5] y) {{
            a = {CONVOLUTION}(x, w, b)
            y = Clip({", ".join(["a", *bounds])})
        }}""",
        w=floats(4, 3, 1, 1),
        b=floats(4),
        **bounds,
    )
    (parsed,) = schema.ModelT.InitFromPackedBuf(emit(m).data, 0).subgraphs
    activation = parsed.operators[0].builtinOptions.fusedActivationFunction
    assert activation == getattr(schema.ActivationFunctionType, fused or "NONE")
    assert (len(parsed.operators) == 1) == (fused is not None)
    agree(m)


@pytest.mark.parametrize(
    "body",
    [
        *(f"a = {kind}(x, k)" for kind in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow")),
        *(f"a = {kind}(x)" for kind in ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSwish", "Gelu", "Exp")),
        *(f"a = {kind}(x)" for kind in ("Log", "Neg", "Abs", "Sqrt", "HardSigmoid", "Identity")),
        "a = Clip(x, low)",
        "a = PRelu(x, k)",
        "a = Pad(x, pads)",
        "a = Slice(x, starts, ends, axes)",
        "a, b = Split<axis=3, num_outputs=2>(x)",
        "a = Concat<axis=3>(x, x)",
        "a = Where(mask, x, k)",
        "i = Cast<to=6>(x) a = Cast<to=1>(i)",
    ],
    ids=lambda body: body.split(" = ")[1].split("(")[0],
)
def test_the_layout_of_an_image_is_seen_through_elementwise_operators(body: str):
    """The input is channels last at once, as the convolution behind wants it, so that nothing is transposed."""
    constants = {
        "k": floats(3, 1, 1),
        "low": np.array(-1.5, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "starts": np.array([1]),
        "ends": np.array([3]),
        "axes": np.array([2]),
        "mask": np.array([True, False, True]).reshape(1, 3, 1, 1),
    }
    used = {name: array for name, array in constants.items() if name in body.replace("(", ",").replace(")", ",")}
    m = model(
        f"(float[1,3,4,6] x) => (float[N,C,H,W] y) {{ {body} y = {CONVOLUTION}(a, w, b0) }}",
        w=floats(2, 3, 1, 1),
        b0=floats(2),
        **used,
    )
    emitted = emit(m)
    assert "TRANSPOSE" not in kinds(emitted.data)
    assert emitted.inputs[0].form == (0, 2, 3, 1)


def test_the_default_epsilon_of_a_normalization_is_that_of_onnx():
    """Values so close together that 1e-5 is most of what the variance becomes."""
    small = {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}
    for body in ("y = InstanceNormalization(x, scale, bias)", "y = LayerNormalization(x, scale, bias)"):
        m = model(f"(float[1,3,4,3] x) => (float[1,3,4,3] y) {{ {body} }}", **small)
        feeds = {"x": 0.003 * RNG.standard_normal((1, 3, 4, 3)).astype(np.float32)}
        (expected,), (found,) = run_onnx(m, feeds), run_tflite(m, feeds)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_only_quantized_ends_become_int8_and_only_when_asked():
    m = model("(float[1,4] x, float[1,4] z) => (float[1,4] y) { a = Relu(x) y = Add(a, z) }")
    values = {v.name: v for v in (*m.graph.inputs, *(v for node in m.graph for v in node.outputs))}
    for name in ("x", "a", "y"):
        set_quantization(values[name], Quantization(np.array([0.05], np.float32), np.array([3], np.int32)))
    for io_dtype, expected in (
        (ir.DataType.FLOAT, {"x": "FLOAT", "z": "FLOAT", "y": "FLOAT"}),
        (ir.DataType.INT8, {"x": "INT8", "z": "FLOAT", "y": "INT8"}),
    ):
        emitted = emit(m, io_dtype=io_dtype)
        ends = {io.name: io for io in (*emitted.inputs, *emitted.outputs)}
        assert {name: io.dtype.name for name, io in ends.items()} == expected
        assert (ends["y"].scale, ends["y"].zero_point) == (
            (pytest.approx(0.05), 3) if io_dtype == ir.DataType.INT8 else (1.0, 0)
        )


def test_a_layer_has_the_bias_that_its_node_has():
    for inputs, bias in (("x, w", None), ("x, w, b", "b")):
        constants = {"w": floats(4, 3, 1, 1), "b": floats(4)}
        m = model(
            f"(float[1,3,4,5] x) => (float[1,4,4,5] y) {{ y = {CONVOLUTION}({inputs}) }}",
            **{name: array for name, array in constants.items() if name in inputs},
        )
        (layer,) = layers(m.graph)
        assert (None if layer.bias is None else layer.bias.name) == bias


def test_float16_weights_are_stored_as_such_and_expanded():
    m = model(
        f"(float[1,3,4,5] x) => (float[1,4,4,5] y) {{ y = {CONVOLUTION}(x, w, b) }}", w=floats(4, 3, 1, 1), b=floats(4)
    )
    half, single = emit(to_float16(m)), emit(m)
    assert kinds(single.data) == ["CONV_2D"]
    assert set(kinds(half.data)) == {"DEQUANTIZE", "CONV_2D"}
    (graph,) = schema.ModelT.InitFromPackedBuf(half.data, 0).subgraphs
    stored = {tuple(t.shape): t.type for t in graph.tensors if t.type == schema.TensorType.FLOAT16}
    assert (4, 1, 1, 3) in stored
