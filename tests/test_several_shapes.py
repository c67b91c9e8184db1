"""One file for several shapes of its inputs, against ONNX Runtime on the model that came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper, parser

from edgecompress import convert
from edgecompress.cli.options import parse_input_shapes
from edgecompress.compress.quantize import calibrate, quantize
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import tflite as tflite_emitter
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.evaluate.dataset import load_data
from edgecompress.graph.annotations import quantization
from edgecompress.graph.input_sizes import own_key, several_sizes
from edgecompress.ingest import load
from edgecompress.ingest.several_shapes import in_other_shapes, with_sizes
from edgecompress.lowering.tensor_io import TFLiteModel
from edgecompress.recipe import Preprocess, Quantize

RNG = np.random.default_rng(0)
Arrays = dict[str, np.ndarray]
FLOAT = {"quantize": {"weights": "float32"}}


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(header: str, body: str, **constants) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {header} {{ {body} }}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    return proto


def encoder() -> onnx.ModelProto:
    """Words and positions, one attention with a causal mask and two heads, and the mean of what is not padded."""
    return model(
        "(int64[batch,seq] ids, int64[batch,seq] mask) => (float[batch,8] y)",
        "s = Shape (ids) n = Slice (s, one, two) w = Gather (words, ids) p = Slice (positions, zero, n, one) "
        "e = Add (w, p) q = MatMul (e, wq) k = MatMul (e, wk) heads = Concat <axis = 0> (split_a, n, split_b) "
        "qh = Reshape <allowzero = 0> (q, heads) kh = Reshape <allowzero = 0> (k, heads) "
        "qt = Transpose <perm = [0, 2, 1, 3]> (qh) kt = Transpose <perm = [0, 2, 3, 1]> (kh) l = MatMul (qt, kt) "
        "nn = Concat <axis = 0> (n, n) c = Slice (causal, zeros, nn, axes) m = Add (l, c) a = Softmax (m) "
        "vh = Reshape <allowzero = 0> (e, heads) v = Transpose <perm = [0, 2, 1, 3]> (vh) r = MatMul (a, v) "
        "t = Transpose <perm = [0, 2, 1, 3]> (r) flat = Concat <axis = 0> (split_a, n, eight) "
        "f = Reshape <allowzero = 0> (t, flat) u = Unsqueeze (mask, last) g = Cast <to = 1> (u) h = Mul (f, g) "
        "sum = ReduceSum <keepdims = 0> (h, one) count = ReduceSum <keepdims = 0> (g, one) y = Div (sum, count)",
        words=normal(150, 8), positions=normal(1, 64, 8), wq=normal(8, 8), wk=normal(8, 8),
        causal=np.triu(np.full((64, 64), -1e9, np.float32), 1), zero=np.array([0]), one=np.array([1]),
        two=np.array([2]), zeros=np.array([0, 0]), axes=np.array([0, 1]), last=np.array([-1]), eight=np.array([8]),
        split_a=np.array([0]), split_b=np.array([2, 4]),
    )  # fmt: skip


def images() -> onnx.ModelProto:
    """A convolution net for images of any size, with an upsampling and a global mean."""
    return model(
        "(float[n,3,h,w] x) => (float[n,5] y, float[n,4,a,b] up)",
        "c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1) r = Relu (c) "
        "d = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2) "
        'e = Relu (d) up = Resize <mode = "linear"> (e, , scales) g = GlobalAveragePool (e) f = Flatten (g) '
        "y = MatMul (f, w3)",
        w1=normal(8, 3, 3, 3), b1=normal(8), w2=normal(4, 8, 3, 3), w3=normal(4, 5),
        scales=np.array([1, 1, 2, 2], np.float32),
    )  # fmt: skip


TEXT = {"ids": RNG.integers(0, 50, (20, 32)), "mask": (np.arange(32) < RNG.integers(4, 33, (20, 1))).astype(np.int64)}
IMAGES = {"x": normal(20, 3, 24, 32)}
# network, its data, shapes that it is converted for, and one more, which .onnx takes as well
CASES = {
    "encoder": (encoder, TEXT, {"ids": [(1, 16), (1, 32)]}, {"ids": (3, 21), "mask": (3, 21)}),
    "images": (images, IMAGES, {"x": [(1, 3, 16, 16), (1, 3, 24, 32), (1, 3, 24, 16)]}, {"x": (2, 3, 20, 12)}),
}
WEIGHTS = {b"words", b"wq", b"wk", b"w1", b"w2", b"w3"}


def cut(arrays: Arrays, shapes: dict[str, Sequence[int]]) -> Arrays:
    """The first samples, as large as these shapes."""
    return {name: arrays[name][tuple(slice(n) for n in shape)] for name, shape in shapes.items()}


def keys(shapes: dict[str, list[tuple[int, ...]]]) -> list[str]:
    return [f"{name}_{'x'.join(map(str, shape))}" for name, its in shapes.items() for shape in its]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("open_batch", [False, True])
def test_each_shape_is_computed_as_in_the_model_that_came_in(name, open_batch):
    network, data, shapes, another = CASES[name]
    proto = network()
    found = load(proto, input_shapes=shapes).model
    written = onnx_emitter.emit(found, open_batch=open_batch)
    lite = tflite_emitter.emit(found, open_batch=open_batch)
    for sizes, key in zip(several_sizes(found.graph), keys(shapes), strict=True):
        feeds, io = cut(data, sizes.inputs), next(io for io in (lite, *lite.others) if io.signature == key)
        expected = run_onnx(proto.SerializeToString(), feeds)
        for outputs in (run_onnx(written, feeds), run_litert(io, feeds)):
            assert_close(expected, outputs)
        if open_batch:
            feeds = cut(data, {k: (3, *s[1:]) for k, s in sizes.inputs.items()})
            assert_close(run_onnx(proto.SerializeToString(), feeds), run_litert(io, feeds))
    if not open_batch:
        another = {k: (1, *shape[1:]) for k, shape in another.items()}
    assert_close(run_onnx(proto.SerializeToString(), cut(data, another)), run_onnx(written, cut(data, another)))


def run_onnx(model_bytes: bytes, feeds: Arrays) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"]).run(None, feeds)


def run_litert(io: TFLiteModel, feeds: Arrays) -> list[np.ndarray]:
    run = Interpreter(model_content=io.data).get_signature_runner(io.signature)
    inputs = [replace(t, shape=(len(feeds[t.name]), *t.shape[1:])) for t in io.inputs]
    stored = run(**{t.name: t.to_device(feeds[t.name]) for t in inputs})
    return [replace(t, shape=stored[t.name].shape).from_device(stored[t.name]) for t in io.outputs]


def assert_close(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> None:
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=2e-5 * np.abs(a).max())


@pytest.mark.parametrize("name", CASES)
def test_integers_mean_the_same_in_every_shape(name):
    """One set of int8 weights, and one scale for what all shapes have."""
    network, data, shapes, _ = CASES[name]
    found = load(network(), input_shapes=shapes).model
    made = quantize(found, load_data(data, found.graph.inputs, Preprocess()), Quantize()).model
    constants, scales, values = (
        set(),
        set(),
        {v.name for node in made.graph for v in (*node.inputs, *node.outputs) if v},
    )
    graphs = schema.ModelT.InitFromPackedBuf(tflite_emitter.emit(made).data, 0).subgraphs
    assert len(graphs) == len(keys(shapes))
    for graph in graphs:
        weights = [t for t in graph.tensors if t.type == schema.TensorType.INT8 and t.buffer and t.name in WEIGHTS]
        constants.add(tuple(sorted((t.name, t.buffer) for t in weights)))
        stored = [t for t in graph.tensors if t.name.decode() in values and t.quantization is not None]
        scales.add(tuple(sorted((t.name, tuple(t.quantization.scale)) for t in stored)))
    assert len(constants) == 1 and len(constants.pop()) >= 3
    assert len(scales) == 1 and len(scales.pop()) >= 5


def test_a_conversion_checks_every_shape(tmp_path):
    _, data, shapes, _ = CASES["images"]
    formats, out = ["onnx", "tflite"], tmp_path / "out"
    result = convert(images(), output=out, calib=data, input_shapes=shapes, recipe=FLOAT, formats=formats)
    assert result.report.status == "ok"
    checks = {a.format: {c.shape for c in a.checks} for a in result.report.artifacts}
    listed = {a.format: a.shapes for a in result.report.artifacts}
    assert listed == dict.fromkeys(formats, keys(shapes)) and checks == {key: {*keys(shapes)} for key in formats}
    macs = {format: sum(a.macs_by_type.values()) for format, a in zip(formats, result.report.artifacts, strict=True)}
    assert len(set(macs.values())) == 1  # of the largest shape


def test_a_constant_is_in_the_file_once():
    """Of a net with many weights and few operators, a second shape adds little."""
    proto = model("(float[1,1000,t] x) => (float[1,8,t] y)", "y = Conv (x, w)", w=normal(8, 1000, 9))
    from edgecompress.emit import tflite

    sizes = [
        len(tflite.emit(load(proto, input_shapes={"x": s}).model).data)
        for s in ([(1, 1000, 40)], [(1, 1000, 20), (1, 1000, 40)])
    ]
    assert 4 * 72_000 < sizes[0] < sizes[1] < sizes[0] + 2000


def test_ranges_are_those_of_all_shapes():
    """The mean over the first half of each sample is far above that over all of it."""
    proto = model("(float[1,t,4] x) => (float[1,4] y)", "y = ReduceMean <keepdims = 0> (x, axis)", axis=np.array([1]))
    found = load(proto, input_shapes={"x": [(1, 4, 4), (1, 8, 4)]}).model
    x = np.concatenate([np.full((6, 4, 4), 3.0), np.full((6, 4, 4), -2.5)], axis=1).astype(np.float32)
    measured = calibrate(found, load_data(x, found.graph.inputs, Preprocess()), Quantize())
    assert (measured.histograms["y"].minimum, measured.histograms["y"].maximum) == (0.25, 3.0)


def test_an_output_that_is_bad_in_one_shape_alone_is_named(tmp_path):
    """For the short shape it is smaller than a step of the scale that both share."""
    proto = model(
        "(float[1,t,4] x) => (float[1,4] y)",
        "m = ReduceMean <keepdims = 0> (x, axis) y = MatMul (m, w)",
        axis=np.array([1]),
        w=np.eye(4, dtype=np.float32),
    )
    x = np.concatenate([0.01 * normal(40, 4, 4), 40 + normal(40, 4, 4)], axis=1)
    recipe = {"quantize": {"search_seconds": 0}}
    result = convert(
        proto,
        output=tmp_path / "out",
        calib=x,
        recipe=recipe,
        formats=["onnx"],
        input_shapes={"x": [(1, 4, 4), (1, 8, 4)]},
    )
    assert result.report.status == "quality-below-limit"
    ratios = {c.shape: c.snr_db for a in result.report.artifacts for c in a.checks}
    assert ratios["x_1x8x4"] > 40 and (ratios["x_1x4x4"] is None or ratios["x_1x4x4"] < 20)
    assert "for x_1x4x4" in result.report.verdict


@pytest.mark.long
def test_microcontrollers_get_the_largest_shape(tmp_path):
    _, data, shapes, _ = CASES["images"]
    recipe, formats = {"quantize": {"search_seconds": 0}}, ["tflite", "pack"]
    keywords = {"calib": data, "recipe": recipe, "formats": formats, "input_shapes": shapes}
    result = convert(images(), "cortex-m4", output=tmp_path / "out", **keywords)
    assert "the .tflite file is for x_1x3x24x32 alone: TensorFlow Lite Micro runs one" in result.report.notes
    assert "the .pack file is for x_1x3x24x32 alone: a .pack has one shape" in result.report.notes
    assert {c.shape for a in result.report.artifacts for c in a.checks} == {"x_1x3x24x32"}
    assert len(Interpreter(str(result.artifacts["tflite"])).get_signature_list()) == 1


def test_what_compression_does_to_a_table_holds_for_its_parts():
    found = load(encoder(), input_shapes={"ids": [(1, 16), (1, 32)]}).model
    table = next(v for v in found.graph.initializers.values() if v.shape == [1, 32, 8])
    table.const_value = ir.tensor(2 * table.const_value.numpy(), name=table.name)
    ((sizes, other),) = in_other_shapes(found)
    part = next(v for v in other.graph.initializers.values() if v.shape == [1, 16, 8])
    np.testing.assert_array_equal(part.const_value.numpy(), table.const_value.numpy()[:, :16])
    assert quantization(part) is None and sizes.key == "ids_1x16" and own_key(found.graph) == "ids_1x32"
    assert own_key(with_sizes(found, several_sizes(found.graph)[0]).graph) == "ids_1x16"


def test_what_is_refused(tmp_path):
    proto = model("(float[1,t,4] x, float[1,t,4] z) => (float[1,t,4] y)", "y = Add (x, z)")
    two, three = [(1, 2, 4), (1, 3, 4)], [(1, 2, 4), (1, 3, 4), (1, 4, 4)]
    with pytest.raises(InputError, match="'x' has 2, 'z' has 3 shapes"):
        load(proto, input_shapes={"x": two, "z": three})
    uneven = model("(float[1,h,w] x) => (float[1,h,w] y)", "y = Relu (x)")
    with pytest.raises(InputError, match="make one of the shapes the largest in every dimension"):
        convert(uneven, output=tmp_path / "o", calib=normal(9, 4, 9), input_shapes={"x": [(1, 8, 4), (1, 4, 9)]})
    loop = model(
        "(float[1,t] x) => (float[1,t] y)",
        "s = Shape <start = 1> (x) n = Squeeze (s) y = Loop (n, , x) "
        "<body = b (int64 i, bool c, float[1,t] a) => (bool d, float[1,t] e) { d = Identity (c) e = Exp (a) }>",
    )
    with pytest.raises(UnsupportedModelError, match=r"x_1x2, x_1x4.*nodes depend on the shape.*each of them"):
        load(loop, input_shapes={"x": [(1, 2), (1, 4)]})


def test_several_shapes_on_the_command_line():
    both = [(1, 64), (1, 128)]
    assert parse_input_shapes(("ids:1,64|128",)) == parse_input_shapes(("ids:1,64", "ids:1,128")) == {"ids": both}
    assert parse_input_shapes(("x:1,3,8|16,4|6", "y:2")) == {"x": [(1, 3, 8, 4), (1, 3, 16, 6)], "y": (2,)}
    for wrong in ("x:1,2|3,4|5|6", "x:1,|2", "x:1,0|2"):
        with pytest.raises(InputError, match="--input-shape"):
            parse_input_shapes((wrong,))
