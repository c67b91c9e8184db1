"""What reports say of files, against the files: types, shares, zeros and patterns."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgecompress import convert
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.patterns_again import patterns_again
from edgecompress.compress.quantize import quantize_dynamic, to_float16
from edgecompress.emit import onnx, pack, tflite
from edgecompress.evaluate.file_count import FileCount, count_file
from edgecompress.graph.annotations import Sparsity, set_sparsity, sparsity
from edgecompress.graph.fusion import constant
from edgecompress.ingest import load
from edgecompress.operators import record_of
from edgecompress.operators.example import Example
from edgecompress.recipe import Quantize
from edgecompress.record.report import Goal
from edgecompress.report.float_parts import float_notes
from edgecompress.report.layers import report_layers
from edgecompress.report.pruned import counted_goals
from quantizing import static
from test_interpreters import parse

FORMATS = {
    "onnx": onnx.emit,
    "tflite": lambda model: tflite.emit(model).data,
    "pack": lambda model: pack.emit(model).data,
}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


NETWORKS = {
    "conv": lambda: parse(
        "(float[1, 3, 8, 8] x) => (float[1, 4, 3, 3] y) { a = Conv<strides=[2, 2]>(x, w, b) y = Relu(a) }",
        w=normal(4, 3, 3, 3),
        b=normal(4),
    ),
    "depthwise": lambda: parse(
        "(float[1, 4, 8, 8] x) => (float[1, 4, 6, 6] y) { y = Conv<group=4>(x, w, b) }",
        w=normal(4, 1, 3, 3),
        b=normal(4),
    ),
    "gemm": lambda: parse(
        "(float[1, 12] x) => (float[1, 5] y) { y = Gemm<transB=1>(x, w, b) }", w=normal(5, 12), b=normal(5)
    ),
    "matmul": lambda: parse("(float[1, 6, 8] x) => (float[1, 6, 5] y) { y = MatMul(x, w) }", w=normal(8, 5)),
    "transposed": lambda: parse(
        "(float[1, 3, 5, 5] x) => (float[1, 4, 7, 7] y) { y = ConvTranspose(x, w, b) }",
        w=normal(3, 4, 3, 3),
        b=normal(4),
    ),
}
GROUPED = {  # attributes of a ConvTranspose, shape of its weights, of its output
    "one channel to each group": ("group=4", (4, 1, 3, 3), (4, 8, 8)),
    "two to each": ("group=2", (4, 2, 3, 3), (4, 8, 8)),
    "with steps": ("group=4, strides=[2, 2], pads=[1, 1, 1, 1]", (4, 1, 4, 4), (4, 12, 12)),
    "more outputs than inputs": ("group=2", (4, 3, 3, 3), (6, 8, 8)),
    "outputs with a padding": ("group=2, strides=[2, 2], output_padding=[1, 1]", (4, 1, 3, 3), (2, 14, 14)),
    "one pixel": ("group=2", (4, 3, 1, 1), (6, 6, 6)),
}


def grouped(form: str) -> ir.Model:
    attributes, shape, output = GROUPED[form]
    text = f"""(float[1, 4, 6, 6] x) => (float[1, {", ".join(map(str, output))}] y) {{
        a = Conv(x, w, b)
        y = ConvTranspose<{attributes}>(a, w2, b2)
    }}"""
    model = parse(text, w=normal(4, 4, 1, 1), b=normal(4), w2=normal(*shape), b2=normal(output[0]))
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    return model


def counted(model: ir.Model, format: str) -> FileCount:
    macs = {}
    for number, node in enumerate(model.graph):
        node.name = node.name or f"node{number}"
        macs[node.name] = record_of(node).macs(node)
    return count_file(FORMATS[format](model), format, macs)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_types_are_those_of_the_file(name, format):
    model = NETWORKS[name]()
    macs, weights = statistics(model).macs, model.graph.initializers["w"].const_value.size
    found = counted(model, format)
    assert found.macs == {"float32": macs} and found.encoding == "float32"
    assert found.weight_bytes["float32"] >= 4 * weights and set(found.weight_bytes) == {"float32"}
    found = counted(static(model), format)
    assert found.macs == {"int8": macs} and found.encoding == "int8"
    assert found.weight_bytes["int8"] == weights
    found = counted(to_float16(model), format)
    assert found.macs == {"float32": macs} and found.encoding == "float16"
    assert found.weight_bytes["float16"] >= 2 * weights
    if name in ("conv", "gemm"):
        found = counted(quantize_dynamic(model, Quantize()), format)
        assert found.macs == {"float32": macs} and found.weight_bytes["int8"] == weights
        assert found.encoding == "dynamic"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_int16_activations_are_counted(name, format):
    model = NETWORKS[name]()
    found = counted(static(model, settings=Quantize(int16_layers=["*"])), format)
    type_, encoding = ("float32", "dynamic") if format == "onnx" else ("int16", "int8")  # ONNX Runtime has no kernels
    assert found.macs == {type_: statistics(model).macs} and found.encoding == encoding
    assert found.weight_bytes["int8"] == model.graph.initializers["w"].const_value.size


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("form", GROUPED)
def test_a_layer_that_a_format_computes_in_float_is_told(form, format):
    """TFLite has no grouped ConvTranspose; its weights are written dense, and float."""
    model = static(grouped(form))
    found = counted(model, format)
    (note,) = float_notes(model, {format: found}, []) or [None]
    rows = {row.name: row.encoding for row in report_layers(model, {}, model, {format: found})}
    assert rows["node0"].startswith("int8")
    if format == "onnx":
        assert found.encoding == "int8" and note is None and rows["node1"].startswith("int8")
        return
    _, (inputs, _, *kernel), (outputs, *_) = GROUPED[form]
    assert found.macs["float32"] > 0 and found.weight_bytes["float32"] >= 4 * inputs * outputs * np.prod(kernel)
    assert rows["node1"] == "float32"
    assert f".{format}: ConvTranspose 'node1' in float, with " in note
    assert f"a .{format} file has no integer kernel for it" in note
    assert float_notes(model, {format: found}, ["node1"]) == []  # as it was asked for


@pytest.mark.parametrize("form", GROUPED)
def test_formats_that_differ_are_told_apart(form):
    model = static(grouped(form))
    counts = {format: counted(model, format) for format in FORMATS}
    rows = {row.name: row.encoding for row in report_layers(model, {}, model, counts)}
    assert rows["node1"].startswith("int8") and rows["node1"].endswith("; float32 in .tflite, .pack")


@pytest.mark.parametrize("form", GROUPED)
def test_a_grouped_transposed_convolution_is_int8_in_every_file(form, tmp_path):
    """A conversion writes each group by itself, and the report says what the interpreters find in the file."""
    x = np.random.default_rng(1).normal(size=(24, 4, 6, 6)).astype(np.float32)
    made = convert(grouped(form), "android", calib=x, output=tmp_path, formats=["tflite"])
    reference = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(str(made.artifacts["tflite"]), experimental_op_resolver_type=reference)
    types = {d["index"]: d["dtype"] for d in interpreter.get_tensor_details()}
    weights = {o["op_name"]: types[o["inputs"][1]] for o in interpreter._get_ops_details() if "CONV" in o["op_name"]}
    assert weights == {"CONV_2D": np.int8, "TRANSPOSE_CONV": np.int8}
    assert {row.encoding for row in made.report.layers} == {"int8 per-channel"}
    assert not made.report.achieved.float_layers and made.report.artifacts[0].encoding == "int8"


NOTHING_MULTIPLIES = {  # and whether the quantizer makes it int8
    "a pool": ("y = MaxPool<kernel_shape = [2, 2]>(x)", True),
    "an activation in front": ("s = Sigmoid(x) y = MaxPool<kernel_shape = [2, 2]>(s)", True),
    "a sum": ("y = Add(x, h)", True),
    "a table": ("s = Selu(x) y = MaxPool<kernel_shape = [2, 2]>(s)", True),
    "conditions": ("c = Greater(x, h) y = Where(c, x, h)", True),
    "an activation alone": ("y = Sigmoid(x)", False),
    "moved alone": ("y = Transpose<perm = [0, 2, 1, 3]>(x)", False),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NOTHING_MULTIPLIES)
def test_a_file_that_multiplies_nothing_has_the_type_of_its_values(name, format):
    nodes, integer = NOTHING_MULTIPLIES[name]
    constants = {"h": np.float32(0.5)} if " h)" in nodes else {}
    model = load(Example(nodes, constants=constants).model()).model
    assert counted(model, format).encoding == "float32"
    assert counted(static(model), format).encoding == ("int8" if integer else "float32")


TABLES = {  # what reads the rows of a table: none has int8 kernels for them
    "LSTM": "z, h = LSTM<hidden_size=5>(e, w, r, b) y = Squeeze(h, one)",
    "GRU": "z, h = GRU<hidden_size=5>(e, w3, r3, b3) y = Squeeze(h, one)",
    "caller": "y = Squeeze(e, one)",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("reader", TABLES)
def test_a_table_that_stays_float_is_named(reader, format):
    weights = {"t": (60, 8), "w": (1, 20, 8), "r": (1, 20, 5), "b": (1, 40)}
    weights |= {"w3": (1, 15, 8), "r3": (1, 15, 5), "b3": (1, 30)}
    nodes = f"i = Cast<to=7>(x) e = Gather(t, i) {TABLES[reader]}"
    used = {name: shape for name, shape in weights.items() if re.search(rf"\b{name}\b", nodes)}
    example = Example(nodes, {"x": (6, 1)}, used, {"one": np.array([1 if reader == "caller" else 0])})
    model = load(example.model()).model
    found = counted(model, format)
    notes = float_notes(model, {format: found}, [])
    share = 100 * 60 * 8 * 4 / sum(found.weight_bytes.values())
    assert any(f".{format}: Gather" in n and f"keeps its table in float, {share:.1f} %" in n for n in notes), notes


@pytest.mark.parametrize(
    "pattern, keep, of", [("2:4", 2, 4), ("1:4", 1, 4), ("1:2", 1, 2), ("4:8", 4, 8), ("3:4", 3, 4)]
)
@pytest.mark.parametrize("broken", [0, 3])
def test_zeros_and_patterns_are_counted_in_the_weights(pattern, keep, of, broken):
    weight = normal(5, 24) + 9
    weight.reshape(5, -1, of)[..., keep:] = 0
    weight[:broken, keep] = 7  # one weight too many in as many groups
    model = parse("(float[1, 24] x) => (float[1, 5] y) { y = Gemm<transB=1>(x, w, b) }", w=weight, b=normal(5))
    set_sparsity(model.graph.initializers["w"], Sparsity(weight != 0, pattern))
    asked = Goal(what="zero weights", unit="%", requested=100 * (1 - keep / of), achieved=99.9)
    zeros, groups = counted_goals([asked], static(model))
    assert zeros.achieved == pytest.approx(100 * np.mean(weight == 0)) and zeros.requested == asked.requested
    total = 5 * 24 // of
    assert groups.what == f"{pattern} groups" and groups.achieved == pytest.approx(100 * (total - broken) / total)
    assert groups.note == (f"{broken} of {total} groups hold more than {keep}" if broken else "")


@pytest.mark.parametrize(
    "pattern, keep, of", [("2:4", 2, 4), ("1:4", 1, 4), ("1:2", 1, 2), ("4:8", 4, 8), ("3:4", 3, 4)]
)
def test_patterns_hold_again_when_channels_have_gone(pattern, keep, of):
    """Inputs go from the middle, so that groups have others; the smallest of too many become zero."""
    rng = np.random.default_rng(0)
    chosen = rng.random((5, 24 // of, of)).argsort(axis=-1) < keep
    weight = np.delete(np.where(chosen.reshape(5, 24), normal(5, 24) + 9, 0), [1, 2, 10], axis=1).astype(np.float32)
    text = "(float[1, 21] x) => (float[1, 5] y) { y = Gemm<transB=1>(x, w, b) }"
    model = parse(text, w=weight, b=normal(5))
    set_sparsity(model.graph.initializers["w"], Sparsity(weight != 0, pattern))
    again, count = patterns_again(model)
    found = constant(again.graph.initializers["w"])
    before, after = (np.pad(array, ((0, 0), (0, -21 % of))).reshape(-1, of) for array in (weight, found))
    assert count == np.count_nonzero(weight) - np.count_nonzero(found) > 0
    for number, (old, new) in enumerate(zip(before, after, strict=True), start=1):
        left = 21 % of if 21 % of and number % -(-21 // of) == 0 else of  # a row's last group is shorter
        most = min(np.count_nonzero(old), -(-left * keep // of))
        assert sorted(new[new != 0], reverse=True) == sorted(old[old != 0], reverse=True)[:most]
    assert np.array_equal(sparsity(again.graph.initializers["w"]).mask, found != 0)
    assert patterns_again(again) == (again, 0)


def test_goals_without_pruned_weights_stay():
    goal = Goal(what="zero weights", unit="%", requested=50, achieved=40)
    assert counted_goals([goal], NETWORKS["gemm"]()) == [goal]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind, gates", [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers_stay_float_and_are_named(kind, gates, format):
    """They are written with other operators in .tflite and .pack files, whose names are not theirs."""
    text = f"""(float[6, 1, 8] x) => (float[1, 4] y) {{
        o, h = {kind}<hidden_size=5>(x, w, r, b)
        f = Reshape(h, s)
        y = Gemm<transB=1>(f, v, c)
    }}"""
    weights = {"w": normal(1, gates * 5, 8), "r": normal(1, gates * 5, 5), "b": normal(1, gates * 10)}
    model = static(parse(text, v=normal(4, 5), c=normal(4), s=np.array([1, 5]), **weights))
    found = counted(model, format)
    (note,) = float_notes(model, {format: found}, [])
    assert found.encoding == "dynamic" and f".{format}: {kind} 'node" in note
    assert found.weight_bytes["int8"] >= gates * 5 * (8 + 5)
    assert "it has no integer kernel, only int8 weights" in note and found.macs["float32"] > found.macs.get("int8", 0)
