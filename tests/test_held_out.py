"""Samples kept apart for checking: which they are, and that they don't calibrate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from edgecompress import convert
from edgecompress.conversion.data import open_data
from edgecompress.evaluate.dataset import Dataset, load_data
from edgecompress.evaluate.held_out import hold_out, select
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.evaluate.micro import installed
from edgecompress.recipe import Preprocess, Recipe
from edgecompress.report.terminal import requested
from edgecompress.targets import load_target
from quantizing import network, normal, snr_db
from test_interpreters import parse

RNG = np.random.default_rng(0)
MODEL = parse("(float[1, 2, 2] a, float[1, 3] b) => (float[1, 2, 2] y, float[1, 3] z) { y = Relu(a) z = Relu(b) }")
A, B = RNG.normal(size=(130, 2, 2)).astype(np.float32), RNG.normal(size=(130, 3)).astype(np.float32)


def opened(path: Path, kind: str) -> Dataset:
    """The same 130 samples with labels, as another kind of source."""
    arrays = {"a": A, "b": B, "y": np.arange(130)}
    if kind != "arrays":
        (np.savez if kind == "npz" else np.savez_compressed)(path / "d.npz", **arrays)
    spec = arrays if kind == "arrays" else path / "d.npz"
    return load_data(spec, MODEL.graph.inputs, Preprocess())


def content(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    batches = list(dataset.batches(7))
    assert [len(b["a"]) for b in batches[:-1]] == [7] * (len(batches) - 1)
    a, b = (np.concatenate([batch[name] for batch in batches]) for name in ("a", "b"))
    return a, b


@pytest.mark.parametrize("kind", ["arrays", "npz", "compressed"])
@pytest.mark.parametrize("index", [[0], [129], [3, 4, 5, 70], list(range(130)), list(range(0, 130, 3))])
def test_selected_samples_are_those_at_these_places(tmp_path, kind, index):
    chosen = select(opened(tmp_path, kind), index)
    a, b = content(chosen)
    assert np.array_equal(a, A[index]) and np.array_equal(b, B[index]) and list(chosen.labels) == index
    assert len(chosen) == len(index) == len(content(chosen.head(10_000))[0])
    assert np.array_equal(content(chosen.head(2))[0], A[index[:2]])


def test_selected_images_are_read_alone(tmp_path):
    model = parse("(float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) { y = Relu(x) }")
    for i in range(12):
        Image.new("RGB", (4, 4), (20 * i, 0, 0)).save(tmp_path / f"{i:02}.png")
    dataset = load_data(tmp_path, model.graph.inputs, Preprocess())
    (tmp_path / "03.png").write_bytes(b"")  # not among them
    (batch,) = select(dataset, [11, 2]).batches(64)
    assert list(batch["x"][:, 0, 0, 0]) == [40, 220]


@pytest.mark.parametrize("kind", ["arrays", "npz"])
def test_a_fifth_is_held_out_whatever_the_order(tmp_path, kind):
    rest, held = hold_out(opened(tmp_path, kind))
    assert held is not None and (len(rest), len(held)) == (104, 26)
    assert sorted([*rest.labels, *held.labels]) == list(range(130))
    order = RNG.permutation(130)
    data = {"a": A[order], "b": B[order], "y": order}
    _, again = hold_out(load_data(data, MODEL.graph.inputs, Preprocess()))
    assert sorted(again.labels) == sorted(held.labels)


@pytest.mark.parametrize(
    ("places", "held"),
    [
        (list(range(9)), 0),  # too few
        (list(range(10)), 2),
        ([0] * 50, 0),  # all alike
        ([0] * 25 + [1] * 25, 0),
        ([*range(40), *range(40)], 16),
        ([*range(20), 0, 0, 0, 0, 0], 5),
    ],
)
def test_equal_samples_stay_together(places, held):
    data = load_data({"a": A[places], "b": B[places], "y": np.array(places)}, MODEL.graph.inputs, Preprocess())
    rest, part = hold_out(data)
    assert (0 if part is None else len(part)) == held
    assert part is None or not set(part.labels) & set(rest.labels)


def test_what_checks_does_not_calibrate():
    profile = load_target("android")
    opened = open_data(MODEL, {"a": A, "b": B, "y": np.arange(130)}, None, Recipe(), profile)
    assert opened.held_out and len(opened.check) == 26 and len(opened.calibration) == 104
    assert opened.check.labels is None  # accuracy on calibration data would look better than it is
    assert not set(map(bytes, content(opened.check)[0])) & set(map(bytes, content(opened.calibration)[0]))
    whole = open_data(MODEL, {"a": A, "b": B}, {"a": A, "b": B}, Recipe(), profile)
    assert not whole.held_out and len(whole.check) == len(whole.calibration) == 130
    few = open_data(MODEL, {"a": A[:5], "b": B[:5]}, None, Recipe(), profile)
    assert len(few.check) == len(few.calibration) == 5 and "too few to keep a fifth" in few.notes[0]


@pytest.mark.parametrize("target", ["android", "cortex-m4"])
def test_the_report_has_the_ratio_of_both(target, tmp_path):
    """On what was held out and on what calibrated, each as ONNX Runtime and LiteRT give it."""
    model = network("c = Conv(x, w) r = Relu(c) y = Conv(r, v)", w=normal(4, 3, 3, 3), v=normal(2, 4, 1, 1))
    data = load_data({"x": normal(60, 3, 8, 8, seed=1)}, model.graph.inputs, Preprocess())
    made = convert(model, target, calib={"x": normal(60, 3, 8, 8, seed=1)}, output=tmp_path, formats=["tflite"])
    (artifact,) = made.report.artifacts
    checks = {check.interpreter: check for check in artifact.checks}
    interpreter = Interpreter(str(made.artifacts["tflite"]))
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()

    def ratio(part: Dataset) -> float:
        x = next(iter(part.batches(60)))["x"]
        stored, found = x.transpose(0, 2, 3, 1), []
        if target != "android":
            scale, zero = given["quantization"]
            stored = np.clip(np.rint(stored / scale) + zero, -128, 127).astype(np.int8)
        for sample in stored:
            interpreter.set_tensor(given["index"], sample[None])
            interpreter.invoke()
            found.append(interpreter.get_tensor(taken["index"]).transpose(0, 3, 1, 2).astype(np.float32))
        scale, zero = taken["quantization"]
        y = np.concatenate(found) if target == "android" else scale * (np.concatenate(found) - zero)
        return snr_db(OnnxRuntime(model).run({"x": x})[0], y)

    held, rest = hold_out(data)
    held, rest = (held, rest) if len(held) < len(rest) else (rest, held)
    assert checks["LiteRT"].samples == 12 and artifact.calibration_check.samples == 48
    assert checks["LiteRT"].snr_db == pytest.approx(ratio(held), abs=0.02)
    assert artifact.calibration_check.snr_db == pytest.approx(ratio(rest), abs=0.02)
    (shown,) = [achieved for what, _, achieved in requested(made.report) if what == "signal to noise"]
    assert "dB: output 'y', on 12 other samples" in shown and "dB on 48 that calibrated" in shown
    micro = [check.interpreter for check in artifact.checks if check.arena_head_bytes is not None]
    assert micro == (["TFLM"] if target == "cortex-m4" and installed() else [])
    for name in micro:  # beside the layers' structures: at least an input and an output of a layer at once
        assert checks[name].arena_head_bytes >= 3 * 8 * 8 + 4 * 6 * 6 and checks[name].arena_persistent_bytes > 0
