"""The zoo's bench on a wheel made here: what it finds, and what it says of it."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import zoo
import zoo_file

INPUTS = {"shape": zoo.image("x", 9, 8), "bytes": zoo.contents("x", 64), "text": zoo.tokens(12, 30, "a", "b", "c")}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package of two networks, one of which has an operator that nobody knows."""
    good = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b,t,4] x, float[2,b,8] s) => (float[b,t,8] y) '
        "{ m = MatMul(x, w) n = ReduceSum<keepdims=0>(s, first) k = Unsqueeze(n, one) p = Add(m, k) y = Relu(p) }"
    )
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((4, 8)).astype(np.float32), "first": np.array([0]), "one": np.array([1])}
    good.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    bad = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> g (float[1,4] x) => (float[1,4] y) { y = mine.What(x) }'
    )
    with zipfile.ZipFile(tmp_path / "some_package-1.0-py3-none-any.whl", "w") as archive:
        for name, model in (("good", good), ("bad", bad)):
            archive.writestr(f"some_package/{name}.onnx", model.SerializeToString())
    monkeypatch.setenv("EDGECOMPRESS_ZOO", str(tmp_path))
    networks = {
        **zoo._packaged("sound", "some-package", "some_package", {
            "good": ("good.onnx", zoo.features(x=(5, 4), s=(2, 1, 8))),
            "bad": ("bad.onnx", zoo.features(x=(4,))),
            "missing": ("missing.onnx", zoo.features(x=(4,))),
        }),
    }  # fmt: skip
    monkeypatch.setattr(zoo, "NETWORKS", networks)
    return tmp_path


@pytest.mark.long
def test_each_network_has_a_row(wheels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv("EDGECOMPRESS_ONNX2TF", raising=False)
    kept = ["zoo.py", "--rows", str(wheels / "rows.jsonl")]
    monkeypatch.setattr(sys, "argv", kept)
    assert zoo.main() == 0
    shown = capsys.readouterr().out
    assert "missing: left out" in shown and "2 networks: 0 fault, 1 refused, 0 slow, 0 gate, 1 ok" in shown
    rows = [line.split("|")[1:4] for line in shown.splitlines() if line.startswith("| ") and "network" not in line]
    assert [[cell.strip() for cell in row] for row in rows] == [["bad", "sound", "refused"], ["good", "sound", "ok"]]
    assert "mine.What" in shown and "static converts 1 of 2" in shown
    good = {row.name: row for row in map(zoo.row_of, map(json.loads, (wheels / "rows.jsonl").open()))}["good"]
    assert set(good.files) == {"model", "static", *zoo.FORMATS} and not any(f.line for f in good.files.values())
    assert good.files["model"].decibels > 200 and 20 < good.worst < 80 and 20 < good.files["static"].decibels < 80
    assert all(f.ratio > 0 and f.microseconds > 0 for f in good.files.values())
    monkeypatch.setattr(zoo, "measure", None)  # rows are kept
    document = wheels / "page.md"
    document.write_text("a\n<!-- generated: zoo -->\nold\n<!-- end -->\nb\n")
    monkeypatch.setattr(sys, "argv", [*kept, "--show", str(document)])
    assert zoo.main() == 0
    text = document.read_text()
    assert text.startswith("a\n<!--") and text.endswith("<!-- end -->\nb\n")
    assert "2 networks" in text and "old" not in text


def test_what_takes_too_long_is_stopped() -> None:
    code, line, seconds, _ = zoo.run([sys.executable, "-c", "while True: pass"], 1)
    assert code == zoo.TOO_LONG and "stopped" in line and seconds < 3


def test_noise_is_measured_in_the_worst_output() -> None:
    """One output is off by a hundredth, 40 dB, and the other, which a tool moved and named anew, by a tenth, 20 dB."""
    rng = np.random.default_rng(0)
    y, z = rng.standard_normal((4, 1, 5)).astype("f"), rng.standard_normal((4, 1, 2, 3, 3)).astype("f")
    expected = {"y": y, "z": z, "n": np.arange(4)}
    moved = {"n": np.zeros(4), "serving_default_z:0": 0.9 * np.moveaxis(z, 2, -1), "other": 1.01 * y}
    assert zoo.decibels(expected, moved) == pytest.approx(20, abs=0.01)
    assert zoo.decibels(expected, moved | {"serving_default_z:0": z}) == pytest.approx(40, abs=0.01)
    assert zoo.decibels(expected, {"z": z}) == -np.inf
    assert zoo.decibels({"n": np.arange(4)}, moved) is None


def test_inputs_of_a_file_are_found() -> None:
    """By name or by shape, with channels where the file has them."""
    x, s = np.zeros((3, 8, 9)), np.ones((2, 1, 4))
    moved, state = zoo_file.matched(["serving_default_x:0", "s"], [(1, 8, 9, 3), (2, 1, 4)], {"s": s, "x": x})
    assert moved.shape == (1, 8, 9, 3) and state.all()
    (state,) = zoo_file.matched(["args_0"], [(1, 2, 1, 4)], {"s": s})
    assert state.shape == (1, 2, 1, 4)


@pytest.mark.parametrize("kind", INPUTS)
def test_samples_are_seeded_and_differ(kind: str) -> None:
    first, again, more = (INPUTS[kind](np.random.default_rng(seed), 6) for seed in (0, 0, 1))
    for name, x in first.items():
        assert len(x) == 6
        np.testing.assert_array_equal(x, again[name])
        assert name == "c" or not np.array_equal(x, more[name])  # c: types of tokens, all 0
