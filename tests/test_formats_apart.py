"""One format that can't be written, or that no interpreter runs, never loses the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgecompress
from edgecompress.cli import main
from edgecompress.emit import pack, tflite
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.ingest import load
from edgecompress.operators.example import Example

FORMATS = ["onnx", "tflite", "pack"]
WEIGHTS = {"w": (4, 2, 3, 3)}
APART = {
    "Sin has no float kernel in the runtime": ("y = Sin(x)", {"pack"}),
    "bits of int32": ("n = Cast<to=6>(x) p = BitwiseNot(n) y = Cast<to=1>(p)", {"pack", "tflite"}),
    "both bits of int32": ("n = Cast<to=6>(x) p = BitwiseXor(n, n) y = Cast<to=1>(p)", {"pack", "tflite"}),
    "powers of int64": ("n = Cast<to=7>(x) p = Pow(n, n) y = Cast<to=1>(p)", {"pack", "tflite"}),
    "sums of int32": ("n = Cast<to=6>(x) p = ReduceSum(n, a) y = Cast<to=1>(p)", {"pack"}),
    "absolute values of int64": ("n = Cast<to=7>(x) p = Abs(n) y = Cast<to=1>(p)", {"tflite"}),
}


def network(nodes: str) -> onnx.ModelProto:
    weights = {name: shape for name, shape in WEIGHTS.items() if f" {name})" in nodes}
    return Example(nodes, weights=weights, constants={"a": np.array([1])} if " a)" in nodes else {}).model()


@pytest.mark.parametrize("name", APART)
def test_the_others_are_written(name: str, tmp_path: Path) -> None:
    nodes, refused = APART[name]
    result = edgecompress.convert(network(nodes), target="android", output=tmp_path / "out", formats=FORMATS)
    assert not result.ok and result.report.status == "format-refused"
    assert set(result.report.refused) == refused
    assert {path.suffix[1:] for path in result.artifacts.values()} == set(FORMATS) - refused
    with pytest.raises(UnsupportedModelError) as reason:
        edgecompress.convert(network(nodes), target="android", output=tmp_path / "none", formats=sorted(refused))
    assert all(text in str(reason.value) for text in result.report.refused.values())
    assert not (tmp_path / "none").exists()


def test_the_command_says_so_in_one_line_and_in_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, out = tmp_path / "sine.onnx", tmp_path / "out"
    onnx.save(network("y = Sin(x)"), path)
    with pytest.raises(SystemExit) as end:
        main(["convert", str(path), "--target", "android", "-o", str(out), *(f"--format={name}" for name in FORMATS)])
    assert end.value.code == 3
    report = json.loads((out / "report.json").read_text())
    shown = " ".join(capsys.readouterr().out.split())
    assert f"format-refused: pack: {report['refused']['pack']}" in shown
    assert sorted(f.suffix for f in out.iterdir() if f.suffix in (".onnx", ".pack", ".tflite")) == [".onnx", ".tflite"]


def test_all_faults_of_a_format_are_named_at_once() -> None:
    """A node that ONNX alone has, types that LiteRT has no kernels for, and operators that the runtime lacks."""
    nodes = (
        "n = Cast<to=7>(x) b = Abs(n) f = Cast<to=1>(b) d = Det(f) s = Sin(x) k = Neg(d) "
        "i = Cast<to=6>(s) j = BitwiseNot(i) o = Cast<to=1>(j) y = Add(o, k)"
    )
    proto = Example(nodes, {"x": (1, 4, 4, 4)}).model()
    for node in proto.graph.node:
        node.name = f"{node.op_type} of mine"
    model = load(proto).model
    for emit, own in ((tflite.emit, ["'Abs of mine'"]), (pack.emit, ["'Sin of mine'"])):
        with pytest.raises(UnsupportedModelError) as caught:
            emit(model)
        message = str(caught.value)
        assert all(name in message for name in ("'Det of mine'", "'BitwiseNot of mine'", *own)), message
        assert "What to do" in message


def test_all_faults_of_a_model_are_named_at_once() -> None:
    proto = Example(
        "a = RandomNormalLike(x) b = com.example.Bar(a) n = NonZero(x) m = Cast<to=1>(n) s = ReduceSum<keepdims=0>(m) "
        "u = NonZero(a) v = Cast<to=1>(u) t = ReduceSum<keepdims=0>(v) r = Add(s, t) y = Add(b, r)"
    ).model()
    proto.opset_import.add(domain="com.example", version=1)
    for node in proto.graph.node:
        node.name = f"{node.output[0]} of mine"
    with pytest.raises(UnsupportedModelError) as caught:
        load(proto)
    message = str(caught.value)
    assert all(f"'{name} of mine'" in message for name in "abnu"), message
    assert "make what is drawn by chance an input" in message and "replace the node" in message
    assert "'m'" not in message and "'v'" not in message  # they follow from others


def test_all_inputs_that_need_a_shape_are_named_at_once() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[b,t,3] a, float[b,s,3] c) => (float[b,t] y) '
        "{ d = Concat<axis=1>(a, c) y = ReduceMax<keepdims=0>(d) }"
    )
    with pytest.raises(InputError, match=r"'a'.*--input-shape a:1,N,3.*'c'.*--input-shape c:1,N,3"):
        load(proto)
