"""The zoo's bench on a wheel made here: what it finds, and what it says of it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import zoo

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
    monkeypatch.setattr(sys, "argv", ["zoo.py"])
    assert zoo.main() == 0
    shown = capsys.readouterr().out
    assert "missing: left out" in shown and "2 networks: 0 fault, 1 refused, 0 slow, 0 gate, 1 ok" in shown
    rows = [line.split("|")[1:4] for line in shown.splitlines() if line.startswith("| ") and "network" not in line]
    assert [[cell.strip() for cell in row] for row in rows] == [["bad", "sound", "refused"], ["good", "sound", "ok"]]
    assert "mine.What" in shown
    monkeypatch.setattr(zoo, "measure", None)  # rows are kept
    monkeypatch.setattr(sys, "argv", ["zoo.py", "--show"])
    assert zoo.main() == 0 and "2 networks" in capsys.readouterr().out


def test_what_takes_too_long_is_stopped() -> None:
    code, line, seconds, _ = zoo.run([sys.executable, "-c", "while True: pass"], 1)
    assert code == zoo.TOO_LONG and "stopped" in line and seconds < 3


def test_noise_is_measured_in_every_output(tmp_path: Path) -> None:
    """One output is off by a hundredth, 40 dB, and the other by a tenth, 20 dB."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b,3] x, float[2,b,3] s) => (float[b,3] y, float[2,b,3] z) '
        "{{ y = Mul(x, {0}) z = Mul(s, {1}) }}"
    )
    for name, factors in (("a", (1, 1)), ("b", (1.01, 0.9))):
        proto = parser.parse_model(text.format("f", "g"))
        proto.graph.initializer.extend(numpy_helper.from_array(np.float32(f), n) for n, f in zip("fg", factors))
        onnx.save(proto, tmp_path / f"{name}.onnx")
    fresh = zoo.features(x=(3,), s=(2, 1, 3))(np.random.default_rng(0), zoo.FRESH)
    found = zoo.decibels(tmp_path / "a.onnx", tmp_path / "b.onnx", fresh, {})
    assert found == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("kind", INPUTS)
def test_samples_are_seeded_and_differ(kind: str) -> None:
    first, again, more = (INPUTS[kind](np.random.default_rng(seed), 6) for seed in (0, 0, 1))
    for name, x in first.items():
        assert len(x) == 6
        np.testing.assert_array_equal(x, again[name])
        assert name == "c" or not np.array_equal(x, more[name])  # c: types of tokens, all 0
