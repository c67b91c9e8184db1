"""Models whose last shapes depend on the data: what is in front is converted, what follows stays in .onnx."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.parser import parse_graph

from command import edgecompress
from edgecompress import convert, prepare
from edgecompress.emit.onnx import emit
from edgecompress.emit.onnx.tail import with_tail
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.ingest import Ingested, load

FRONT = """
    a = Conv<pads=[1,1,1,1]>(x, w)
    y = Relu(a)
"""
DETECTOR = """
    b = Conv(y, w_box)
    boxes_t = Reshape(b, four)
    boxes = Transpose<perm=[0,2,1]>(boxes_t)
    c = Conv(y, w_class)
    classes = Reshape(c, three)
    scores = Sigmoid(classes)
    picked = NonMaxSuppression(boxes, scores, most, iou, threshold)
    column = Gather<axis=1>(picked, two)
    index = Squeeze(column, one)
    all = Squeeze(boxes, zero)
    found = Gather<axis=0>(all, index)
"""
BACKS = {
    "nms": ("float[n, 4] found, int64[m, 3] picked", DETECTOR),
    "nonzero": (
        "float[n] values, float[1, 8, 6, 6] y",
        "m = Greater(y, half) i = NonZero(m) t = Transpose<perm=[1,0]>(i) values = GatherND(y, t)",
    ),
    "unique": ("float[n] u", "r = Round(y) u = Unique<sorted=1>(r)"),
    "compress": (
        "float[1, n, 6, 6] kept",
        "m = ReduceMax<keepdims=0>(y, spatial) f = Reshape(m, flat) c = Greater(f, half) kept = Compress<axis=1>(y, c)",
    ),
    "if": (
        "float[1, n, 6, 6] z",
        """h = ReduceMax<keepdims=0>(y) big = Greater(h, half)
        z = If(big) <then_branch = yes () => (float[1, 8, 6, 6] p) { s = Add(y, half) p = Mul(s, s) },
                     else_branch = no () => (float[1, 16, 6, 6] q) { q = Concat<axis=1>(y, y) }>""",
    ),
    "loop": (
        "float[1, 8, 6, 6] z",
        """h = ReduceMax<keepdims=0>(y) c = Ceil(h) n = Cast<to=7>(c)
        z = Loop(n, always, y) <body = step (int64 i, bool on, float[1, 8, 6, 6] v)
            => (bool go, float[1, 8, 6, 6] s) { go = Identity(on) s = Mul(v, half) }>""",
    ),
    "shape of what is in front": (
        "int64[n] far",
        """s = Shape(y) e = Gather<axis=0>(s, two) m = Greater(y, half) i = NonZero(m) last = Gather<axis=0>(i, two)
        row = Squeeze(last, one2) edge = Squeeze(e, zero) far = Sub(row, edge)""",
    ),
    "names as the emitter gives them": (
        "float[n] y_quantized",
        "m = Greater(y, half) y_dequantized = NonZero(m) t = Transpose<perm=[1,0]>(y_dequantized)"
        " w_quantized = GatherND(y, t) y_quantized = Neg(w_quantized)",
    ),
}
TENSORS = {
    "four": [1, 4, 36], "three": [1, 3, 36], "most": [20], "two": [2], "one": [1], "zero": [0], "one2": [0],
    "spatial": [2, 3], "flat": [-1],
}  # fmt: skip
NUMBERS = {"iou": [0.5], "threshold": [0.4], "half": 0.5}


def model(name: str, opset: int = 18) -> onnx.ModelProto:
    outputs, back = BACKS[name]
    random = np.random.default_rng(0)
    graph = parse_graph(f"g (float[1, 3, 6, 6] x) => ({outputs}) {{ {FRONT} {back} }}")
    for node in graph.node:
        since = {"ReduceMax": 18, "Squeeze": 13}.get(node.op_type, 0)  # from which on axes are an input
        if opset < since and len(node.input) > 1:
            node.attribute.append(helper.make_attribute("axes", TENSORS[node.input.pop()]))
    arrays = {k: np.array(v, np.int64) for k, v in TENSORS.items()}
    arrays |= {k: np.array(v, np.float32) for k, v in NUMBERS.items()} | {"always": np.array(True)}
    for weight, shape in (("w", (8, 3, 3, 3)), ("w_box", (4, 8, 1, 1)), ("w_class", (3, 8, 1, 1))):
        arrays[weight] = random.normal(0, 0.4, shape).astype(np.float32)
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in arrays.items())
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def ran(content: bytes, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, 3, 6, 6)).astype(np.float32)


def whole(found: Ingested) -> bytes:
    assert found.tail is not None
    return with_tail(emit(found.model), found.tail)


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("name", BACKS)
def test_the_whole_file_computes_what_the_model_does(name: str, opset: int) -> None:
    given = model(name, opset)
    found = load(given)
    assert "depend on the data from" in found.notes[0] and "other formats end in front of them" in found.notes[0]
    content = whole(found)
    assert [o.name for o in onnx.load_from_string(content).graph.output] == [o.name for o in given.graph.output]
    for x in samples(3):
        for ours, theirs in zip(ran(content, x[None]), ran(given.SerializeToString(), x[None]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_cut_reads_as_little_as_it_can() -> None:
    found = load(model("nms"))
    assert [v.name for v in found.model.graph.outputs] == ["boxes", "scores"]
    assert found.tail is not None and {n.op_type for n in found.tail.graph.node} == {
        "NonMaxSuppression", "Gather", "Squeeze",
    }  # fmt: skip


def test_outputs_in_front_of_the_cut_stay_outputs() -> None:
    found = load(model("nonzero"))
    assert [v.name for v in found.model.graph.outputs] == ["y", "m"] or [v.name for v in found.model.graph.outputs] == [
        "m",
        "y",
    ]


def test_an_open_batch_size_is_fixed() -> None:
    given = model("nonzero")
    given.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    found = load(given)
    assert "the batch size is 1, as what follows the cut reads it" in found.notes
    (ours, *_), (theirs, *_) = ran(whole(found), samples(1)), ran(given.SerializeToString(), samples(1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def in_front_of_all(graph: onnx.GraphProto) -> None:
    graph.node[0].input[0] = "shaped"
    graph.node.insert(0, helper.make_node("NonZero", ["x"], ["places"]))
    graph.node.insert(1, helper.make_node("Cast", ["places"], ["floats"], to=1))
    graph.node.insert(2, helper.make_node("Reshape", ["floats", "shape"], ["shaped"]))
    graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 6, -1]), "shape"))


def of_another_domain(graph: onnx.GraphProto) -> None:
    graph.node[-1].domain, graph.node[-1].op_type = "mine", "Odd"


@pytest.mark.parametrize("change", [in_front_of_all, of_another_domain])
def test_without_anything_to_convert_or_to_keep_it_is_refused(change: Callable[[onnx.GraphProto], None]) -> None:
    given = model("nonzero")
    change(given.graph)
    given.opset_import.append(helper.make_opsetid("mine", 1))
    with pytest.raises(UnsupportedModelError):
        load(given)


def test_a_detector_with_nms_becomes_int8_in_all_formats(tmp_path: Path) -> None:
    onnx.save(model("nms"), tmp_path / "detector.onnx")
    np.savez(tmp_path / "calib.npz", x=samples(40))
    formats = [word for f in ("onnx", "tflite", "pack") for word in ("--format", f)]
    code, out, error = edgecompress(
        "convert", tmp_path / "detector.onnx", "--calib", tmp_path / "calib.npz", "-o", tmp_path / "out", *formats
    )
    assert code == 0, error
    assert "(NonMaxSuppression) on" in out
    folder = tmp_path / "out"
    assert {p.suffix for p in folder.iterdir()} >= {".onnx", ".tflite", ".pack"}
    artifacts = {a["format"]: a for a in json.loads((folder / "report.json").read_text())["artifacts"]}
    assert [(t["name"], t["shape"]) for t in artifacts["onnx"]["outputs"]] == [("found", [-1, 4]), ("picked", [-1, 3])]
    assert [t["name"] for t in artifacts["tflite"]["outputs"]] == ["boxes", "scores"]
    content = next(folder.glob("*.onnx")).read_bytes()
    assert len(content) == artifacts["onnx"]["bytes"]
    kinds = {n.op_type for n in onnx.load_from_string(content).graph.node}
    assert {"NonMaxSuppression", "QuantizeLinear"} <= kinds
    x = samples(1)
    ours, theirs = ran(content, x), ran(model("nms").SerializeToString(), x)
    assert len(ours[0]) and abs(len(ours[0]) - len(theirs[0])) <= 3


def test_what_would_lose_the_tail_is_refused(tmp_path: Path) -> None:
    onnx.save(model("nms"), tmp_path / "detector.onnx")
    with pytest.raises(UnsupportedModelError, match=r"prepare: shapes depend on the data from 'picked'"):
        prepare(tmp_path / "detector.onnx", {"prune": {"sparsity": 0.5}}, steps=4)
    with pytest.raises(InputError, match=r"\[exit\]: a model whose last shapes depend on the data"):
        convert(tmp_path / "detector.onnx", train={"x": samples(8)}, recipe={"exit": {"after": "auto"}})
