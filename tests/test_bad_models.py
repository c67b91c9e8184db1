"""Models that can't be read or converted: one clear line each, of the right kind; never anything else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from edgecompress.errors import EdgeCompressError, InputError, UnsupportedModelError
from edgecompress.ingest import external_data, load
from edgecompress.ingest.keras_model import SUFFIXES
from edgecompress.ingest.torch_export import READERS

RNG = np.random.default_rng(3)


def model(nodes: str, inputs: str = "float[N,3,8,8] x", opset: int = 13, **constants: np.ndarray) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float y) {{ {nodes} }}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    return proto


def small() -> onnx.ModelProto:
    return model(
        "c = Conv<pads=[1,1,1,1]>(x, w) n = BatchNormalization(c, s, t, m, v) r = Clip(n, low, high) "
        "p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) f = Reshape(p, flat) g1 = Gemm<transB=1>(f, k) "
        "a, b = Split<axis=1>(g1) d = Concat<axis=1>(b, a) y = Softmax<axis=-1>(d)",
        w=RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
        s=np.ones(4, np.float32),
        t=np.zeros(4, np.float32),
        m=np.zeros(4, np.float32),
        v=np.ones(4, np.float32),
        low=np.float32(0),
        high=np.float32(6),
        flat=np.array([-1, 64]),
        k=RNG.normal(size=(4, 64)).astype(np.float32),
    )


def refused(source: object, kind: type[EdgeCompressError], *mentions: str, **options: object) -> str:
    """The one line with which `load` refuses it."""
    with pytest.raises(EdgeCompressError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert len(message.splitlines()) == 1
    for text in mentions:
        assert text in message, message
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


DATA = small().SerializeToString()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The small model with bits flipped, cut off, or pieces of itself inserted."""
    data = bytearray(DATA)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["flip", "cut", "splice", "write"]))
        if not data:
            break
        # the first two thirds are structure, the rest mostly weights
        at = draw(st.integers(0, len(data) - 1))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "splice":
            start = draw(st.integers(0, len(data) - 1))
            data[at:at] = data[start : start + draw(st.integers(1, 60))]
        else:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=6))
    return bytes(data)


@settings(max_examples=150, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_damaged_files_are_read_or_refused(file: Path, data: bytes):
    file.write_bytes(data)
    try:
        load(file)
    except EdgeCompressError as error:
        assert len(str(error).splitlines()) == 1 and str(file) in str(error)
    assert file.read_bytes() == data


NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 100, 65536, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63)])


@settings(max_examples=150, deadline=20_000)
@given(st.data())
def test_absurd_numbers_in_a_whole_file(data: st.DataObject):
    """Attributes, shapes and sizes that are well-formed and impossible."""
    proto = small()
    fields = [a.ints for n in proto.graph.node for a in n.attribute if a.ints]
    fields += [t.dims for t in proto.graph.initializer if t.dims]
    field = data.draw(st.sampled_from(fields))
    field[data.draw(st.integers(0, len(field) - 1))] = data.draw(NUMBERS)
    shape = proto.graph.input[0].type.tensor_type.shape
    if data.draw(st.booleans()):
        shape.dim[data.draw(st.integers(0, 3))].dim_value = data.draw(NUMBERS)
    try:
        load(proto)
    except EdgeCompressError as error:
        assert len(str(error).splitlines()) == 1


def test_every_truncation_is_refused(file: Path):
    for length in range(0, len(DATA), 97):
        file.write_bytes(DATA[:length])
        refused(file, InputError, str(file))


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"PK\x03\x04 a zip", b"# some text\n" * 20, os.urandom(2000)])
def test_other_files_are_refused(file: Path, data: bytes):
    file.write_bytes(data)
    refused(file, InputError, str(file))


def test_missing_files_and_folders(tmp_path: Path):
    refused(tmp_path / "none.onnx", InputError, "no such file")
    (tmp_path / "folder.onnx").mkdir()
    refused(tmp_path / "folder.onnx", InputError, "not a file")
    (tmp_path / "model.txt").write_text("x")
    refused(tmp_path / "model.txt", InputError, ".pt2", ".onnx")


def test_a_cycle_is_named():
    proto = model("a = Relu(x) b = Add(a, d) d = Neg(b) y = Abs(d)")
    refused(proto, InputError, "cycle", "(Add)")


def test_nodes_out_of_order_are_sorted():
    proto = small()
    nodes = list(proto.graph.node)[::-1]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    assert load(proto).max_relative_error <= 1e-5


def external(folder: Path, location: str, **fields: str) -> Path:
    """A model file whose weight says that its data is at `location`."""
    proto = small()
    tensor = next(t for t in proto.graph.initializer if t.name == "k")
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **fields}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_beside_the_model_is_read(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    path = external(tmp_path, "weights.bin")
    found = load(path).model
    assert "k" in found.graph.initializers and found.graph.initializers["k"].const_value.numpy().shape == (4, 64)
    (tmp_path / "weights.bin").rename(tmp_path / "sub" / "w")
    assert load(external(tmp_path, "sub/w")).max_relative_error <= 1e-5


@pytest.mark.parametrize(
    ("location", "mentions"),
    [
        ("../secret.bin", "leaves the model's folder"),
        ("sub/../../secret.bin", "leaves the model's folder"),
        ("..\\secret.bin", "leaves the model's folder"),
        ("/etc/passwd", "absolute"),
        ("C:\\secret.bin", "absolute"),
        ("nothing.bin", "no such file"),
        ("", "isn't a file name"),
        ("link.bin", "symbolic link"),
        ("linked/secret.bin", "symbolic link"),
    ],
)
def test_external_data_from_elsewhere_is_refused(tmp_path: Path, location: str, mentions: str):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0" * 1024)
    (folder / "link.bin").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    refused(external(folder, location), InputError, "'k'", mentions)


@pytest.mark.parametrize(
    ("fields", "mentions"),
    [
        ({"length": "2048"}, "truncated"),
        ({"offset": "4"}, "not a valid"),
        ({"offset": "-4"}, "a number is expected"),
        ({"length": "many"}, "a number is expected"),
        ({"offset": "9999"}, "truncated"),
    ],
)
def test_external_data_of_the_wrong_size_is_refused(tmp_path: Path, fields: dict[str, str], mentions: str):
    refused(external(tmp_path, "weights.bin", **fields), InputError, mentions)


def test_models_of_two_gigabytes_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sparse = tmp_path / "large.onnx"
    with sparse.open("wb") as stream:
        stream.truncate(2**31)
    start = time.perf_counter()
    refused(sparse, InputError, "2.0 GiB", "below 2 GiB")
    path = external(tmp_path, "weights.bin", length=str(2**31 + 12))
    with (tmp_path / "weights.bin").open("r+b") as stream:
        stream.truncate(2**31 + 12)
    refused(path, InputError, "below 2 GiB")
    assert time.perf_counter() - start < 5
    monkeypatch.setattr(external_data, "LARGEST_MODEL", 1000)
    refused(external(tmp_path, "weights.bin"), InputError, "below 2 GiB")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_weights_that_are_no_numbers_are_named(value: float, word: str):
    proto = small()
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    broken = numpy_helper.to_array(tensor).copy()
    broken[1, 2, 0, 1] = value
    tensor.CopyFrom(numpy_helper.from_array(broken, "w"))
    refused(proto, InputError, "'w'", f"1 {word}", "108")


def test_an_infinite_mask_is_no_weight():
    mask = np.array([[0, -np.inf], [0, 0]], np.float32)
    found = load(model("a = Add(x, mask) y = Softmax(a)", "float[2,2] x", mask=mask))
    constants = [v.const_value.numpy() for v in found.model.graph.initializers.values()]
    assert all(np.isfinite(c).all() for c in constants) and found.max_relative_error <= 1e-5


def test_shapes_that_do_not_fit_name_the_node():
    refused(
        model("a = Relu(x) y = Conv(a, w)", w=np.ones((4, 5, 3, 3), np.float32)),
        InputError,
        "'y'",
        "(Conv)",
        "[4, 5, 3, 3]",
    )
    refused(model("a = Relu(x) y = MatMul(a, w)", w=np.ones((5, 5), np.float32)), InputError, "(MatMul)")


def test_dynamic_dimensions_besides_the_batch_are_named():
    message = refused(model("y = Relu(x)", "float[N,3,height,width] x"), InputError, "'x'", "2 (height)", "3 (width)")
    assert "--input-shape x:1,3," in message
    assert load(model("y = Relu(x)", "float[N,3,h,w] x"), input_shapes={"x": (2, 3, 4, 5)}).model.graph.inputs[
        0
    ].shape == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("shapes", "mentions"),
    [
        ({"z": (1, 3, 8, 8)}, "no input 'z'"),
        ({"x": (1, 4, 8, 8)}, "doesn't fit"),
        ({"x": (1, 3, 8)}, "doesn't fit"),
        ({"x": (0, 3, 8, 8)}, "at least 1"),
        ({"x": (10**20, 3, 8, 8)}, "too large"),
        ({"x": (10**8, 3, 8, 8)}, "too large"),
        ({"x": (10**8,) * 700}, "too large"),  # more digits than Python writes out
        ({"x": "ab"}, "expected whole numbers"),
        ({"x": [1.5, 3, 8, 8]}, "found [1.5, 3, 8, 8]"),
        ({"x": None}, "expected whole numbers"),
        ([("x", (1, 3, 8, 8))], "input_shapes: expected"),
    ],
)
def test_input_shapes_are_checked(shapes: object, mentions: str):
    refused(small(), InputError, mentions, input_shapes=shapes)


def test_a_zero_dimension_is_shown():
    proto = model("y = Relu(x)", "float[N,3] x")
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0
    refused(proto, InputError, "the shape 1,0; every dimension must be at least 1")
    refused(proto, InputError, "which declares N,0", input_shapes={"x": (1, 3)})


@pytest.mark.parametrize(("source", "named"), [(5, "an int"), ([], "a list"), (None, "None")])
def test_other_objects_are_no_models(source: object, named: str):
    refused(source, InputError, f"can't read a model from {named}; pass .onnx")


def test_files_of_other_kinds_are_told_which_are_read():
    refused("x.tflite", InputError, "models of this kind can't be read", ".onnx", *READERS, *SUFFIXES, ".pack")


def test_every_unsupported_operator_is_listed_at_once():
    proto = model("a = RandomNormalLike(x) b = Foo(a) c = Relu(b) d = Flatten(c) e = Foo(d) y = Bar(e)")
    message = refused(
        proto, UnsupportedModelError, "4 nodes", "operator RandomNormalLike: 1", "operator Foo: 2", "operator Bar: 1"
    )
    assert "Flatten" not in message and "Relu" not in message


def test_operators_of_other_domains_are_named():
    proto = model("a = Relu(x) y = com.example.Bar(a)")
    proto.opset_import.add(domain="com.example", version=1)
    refused(proto, UnsupportedModelError, "com.example.Bar")


def test_control_flow_gets_advice():
    looped = model(
        "m = ReduceMax<keepdims=0>(x) b = Greater(m, z) y = Loop( , b, x) <body = g1 (int64 i, bool c, "
        "float[1,3,8,8] v) => (bool d, float[1,3,8,8] w) { w = Relu(v) n = ReduceMax<keepdims=0>(w) "
        "d = Greater(n, z) }>",
        z=np.float32(0),
    )
    refused(looped, UnsupportedModelError, "operator Loop: 1", "control flow")


def test_a_second_output_that_nobody_reads_is_fine():
    proto = model("y, i = MaxPool<kernel_shape=[2,2]>(x) z = Cast<to=1>(i) w = Add(y, z)")
    assert load(proto).max_relative_error <= 1e-5


def test_shapes_that_depend_on_data_are_refused():
    refused(model("n = NonZero(x) y = Cast<to=1>(n)"), UnsupportedModelError, "NonZero", "depends on the data")


def test_opsets_that_are_too_old_say_what_to_do():
    proto = model("y = ThresholdedRelu(x)", opset=9)
    refused(proto, UnsupportedModelError, "opset 9", "ThresholdedRelu", "export it again with opset 13")


def test_values_that_no_device_could_hold_are_refused():
    refused(model("y = Expand(x, s)", "float[1] x", s=np.array([2**20, 2**15])), UnsupportedModelError, "elements")


def test_recursive_functions_end():
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[2] x) => (float[2] y) { y = f.A(x) } '
        '<domain: "f", opset_import: ["" : 17, "f" : 1]> A (a) => (b) { b = f.A(a) }'
    )
    with pytest.raises(EdgeCompressError):
        load(proto)


@pytest.mark.parametrize("place", ["the graph", "a function"])
@pytest.mark.parametrize("operator", ["Max", "Sum", "Mean", "Min", "Concat", "Einsum", "Add"])
def test_required_inputs_that_are_left_out(operator: str, place: str):
    """ONNX Runtime ends the process in most of these."""
    attributes = {"Concat": "<axis=1>", "Einsum": '<equation="nchw,nchw->nchw">'}.get(operator, "")
    if place == "the graph":
        proto = model(f"y = {operator}{attributes}(x, left)", "float[1,3,8,8] x")
        node = proto.graph.node[0]
    else:
        proto = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[1,3,8,8] x) => (float y) { y = f.A(x) } '
            f'<domain: "f", opset_import: ["" : 17]> A (a) => (b) {{ b = {operator}{attributes}(a, left) }}'
        )
        node = proto.functions[0].node[0]
    node.input[1] = ""
    refused(proto, InputError, operator, "leaves out input 1")


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Softmax<axis=1>(x)",
        "y = LeakyRelu<alpha=0.5>(x)",
        "y = Concat<axis=1>(x, x)",
        'y = DepthToSpace<blocksize=2, mode="CRD">(x)',
        "a = Relu(x) y = MaxPool<kernel_shape=[2,2]>(a)",
    ],
)
def test_attributes_that_refer_to_a_function_outside_of_one(nodes: str):
    proto = model(nodes, "float[1,4,8,8] x")
    proto.graph.node[-1].attribute[-1].ref_attr_name = "of_a_function"
    refused(proto, InputError, "'of_a_function'", proto.graph.node[-1].op_type)


@pytest.mark.parametrize(
    "nodes",
    [
        'y = DepthToSpace<blocksize=2, mode="CRD">(x)',
        'y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , , s)',
        'y = MaxPool<auto_pad="SAME_UPPER", kernel_shape=[2,2]>(x)',
        'y = Pad<mode="reflect">(x, p)',
        'y = Gelu<approximate="tanh">(x)',
        'a = Relu(x) y = LSTM<hidden_size=2, direction="reverse", activations=["Sigmoid"]>(a, w, w)',
    ],
)
def test_attributes_that_are_no_text(nodes: str):
    proto = model(nodes, "float[1,4,8,8] x", 20, s=np.array([1, 4, 9, 9]), p=np.ones(8, np.int64), w=np.ones(1))
    texts = [a for node in proto.graph.node for a in node.attribute if a.s or a.strings]
    attribute = texts[-1]
    if attribute.strings:
        attribute.strings[0] = b"Sig\xff\xfe"
    else:
        attribute.s += b"\xff"
    refused(proto, InputError, f"'{attribute.name}'", proto.graph.node[-1].op_type, "isn't UTF-8 text")
