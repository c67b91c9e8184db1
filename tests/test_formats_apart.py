"""One format that can't be written, or that no interpreter runs, never loses the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgecompress
from edgecompress.cli import main
from edgecompress.errors import UnsupportedModelError
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
