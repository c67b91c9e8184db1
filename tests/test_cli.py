"""The command line and `convert` on the sample: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import command
import edgecompress
from edgecompress import cli
from edgecompress.cli.options import parse_input_shapes, parse_preprocess
from edgecompress.errors import InputError
from edgecompress.operators.example import Example
from edgecompress.recipe import Recipe, load_recipe
from edgecompress.record.report import Report
from edgecompress.support import output

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
MODEL, TRAIN, TEST = DIGITS / "digits.onnx", DIGITS / "train.npz", DIGITS / "test.npz"
SMALL_BOARD = """
name = "tiny"
family = "cortex_m"
description = "a board that is too small"
cpu = "cortex-m4"
triple = "thumbv7em-none-eabihf"
formats = ["tflite"]
operators = "tflm"
integer_only = true
io = "int8"
"""


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def closeness(tmp_path) -> list[str]:
    """--eval and --recipe whose metric is 100 minus the mean distance of outputs from the float model's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    pixels = np.load(TEST)["x"][:100].astype(np.float32)
    name = session.get_inputs()[0].name
    logits = np.concatenate([session.run(None, {name: x[None]})[0] for x in pixels])
    np.savez(tmp_path / "closeness.npz", x=pixels, y=logits)
    (tmp_path / "metric.py").write_text(
        "import numpy as np\ndef closeness(outputs, labels):\n"
        "    return 100 - float(np.abs(outputs[0] - labels).mean())\n"
    )
    (tmp_path / "asked.toml").write_text(f"[evaluate]\nmetric = '{tmp_path / 'metric.py'}:closeness'\n")
    return ["--eval", str(tmp_path / "closeness.npz"), "--recipe", str(tmp_path / "asked.toml")]


def test_convert_for_a_microcontroller(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    before = MODEL.read_bytes()
    assert run("convert", MODEL, "--target", "cortex-m4", "--calib", TRAIN, "--eval", TEST) == 0
    folder = tmp_path / "digits-cortex-m4"
    assert sorted(os.listdir(folder)) == ["digits.int8.tflite", "recipe.toml", "report.html", "report.json"]
    assert os.listdir(tmp_path) == [folder.name] and MODEL.read_bytes() == before
    report = Report.model_validate_json((folder / "report.json").read_text())
    (artifact,) = report.artifacts
    assert [t.dtype for t in (*artifact.inputs, *artifact.outputs)] == ["int8", "int8"]
    assert report.status == "ok" and report.achieved.drop is not None and report.achieved.drop < 2
    assert {c.interpreter for c in artifact.checks} >= {"LiteRT", "LiteRT reference"}
    layers = [layer for layer in report.layers if layer.snr_db is not None]
    assert layers and layers == sorted(layers, key=lambda layer: layer.snr_db or 0)
    assert all(layer.encoding == "int8 per-channel" for layer in layers if layer.op == "Conv")
    captured = capfd.readouterr()
    assert captured.err == ""  # no progress bar, no chatter: not a terminal
    assert max(map(len, captured.out.splitlines())) <= 80
    assert "digits.int8.tflite" in captured.out and "Worst layers" in captured.out


def test_reported_accuracy_is_that_of_the_file(tmp_path) -> None:
    """Fed by hand from what report.json says about input and output, in LiteRT."""
    result = edgecompress.convert(str(MODEL), "cortex-m4", output=tmp_path / "out", calib=str(TRAIN), eval=str(TEST))
    (artifact,) = result.report.artifacts
    image, scores = artifact.inputs[0], artifact.outputs[0]
    kind = OpResolverType.AUTO
    interpreter = Interpreter(str(result.artifacts["tflite"]), experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    data = np.load(TEST)
    correct = 0
    for x, y in zip(data["x"], data["y"]):
        pixels = x.transpose(1, 2, 0) if image.layout == "NHWC" else x
        stored = np.rint(pixels / image.scale) + image.zero_point
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], np.clip(stored, -128, 127).astype(np.int8)[None]
        )
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert found.dtype == np.int8 and list(found.shape) == scores.shape
        correct += int(found.argmax() == y)
    checks = {c.interpreter: c for c in artifact.checks}
    assert checks["LiteRT"].value == pytest.approx(100 * correct / len(data["y"]))


def test_without_data_weights_alone_are_int8(tmp_path, capsys) -> None:
    assert run("convert", MODEL, "-o", tmp_path / "out", "--json") == 0
    captured = capsys.readouterr()
    report = Report.model_validate_json(captured.out)  # nothing but JSON on stdout
    assert captured.out == (tmp_path / "out" / "report.json").read_text()
    assert report.achieved.encoding == "dynamic"
    assert {a.format for a in report.artifacts} == {"onnx", "tflite"}
    assert all(2 * a.bytes < MODEL.stat().st_size for a in report.artifacts)
    assert "float activations" in repr(edgecompress.api.Result(report, tmp_path))  # in place of "dynamic"
    assert any("calibration data would" in note and "[samples, 1, 8, 8]" in note for note in report.notes)
    assert report.achieved.drop is None and report.requested.evaluation is None


@pytest.mark.parametrize("weights", ["float16", "float32"])
def test_other_weights(tmp_path, weights: str) -> None:
    (tmp_path / "asked.toml").write_text(f'[quantize]\nweights = "{weights}"\n[emit]\nformats = ["tflite"]\n')
    result = edgecompress.convert(MODEL, output=tmp_path, recipe=tmp_path / "asked.toml", eval=TEST)
    assert os.path.basename(result.artifacts["tflite"]) == f"digits.{weights}.tflite"
    assert result.report.achieved.drop == pytest.approx(0, abs=0.3)
    assert all(layer.bits_per_weight == int(weights[5:]) for layer in result.report.layers)


def test_run_repeated_from_its_recipe_gives_the_same_files(tmp_path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    first = edgecompress.convert(MODEL, output=a, calib=TRAIN, preprocess={"scale": 0.5})
    made = {format: path.read_bytes() for format, path in first.artifacts.items()}
    for recipe in (a / "recipe.toml", b / "recipe.toml"):  # the second time over its own files
        again = edgecompress.convert(MODEL, output=b, calib=TRAIN, recipe=recipe)
        assert made == {format: path.read_bytes() for format, path in again.artifacts.items()}
    assert (a / "recipe.toml").read_text() == (b / "recipe.toml").read_text()


def test_layers_fall_back_to_float_until_the_limit_holds(tmp_path, closeness) -> None:
    def convert(folder: str, *limit: object) -> tuple[int, Report]:
        code = run("convert", MODEL, "-o", tmp_path / folder, "--calib", TRAIN, *closeness, *limit)
        return code, Report.model_validate_json((tmp_path / folder / "report.json").read_text())

    _, free = convert("free")
    assert free.achieved.drop is not None and free.achieved.drop > 0
    limit = free.achieved.drop / 2
    code, held = convert("held", "--max-drop", limit)
    assert code == 0 and held.status == "ok" and held.achieved.drop is not None
    assert len(held.achieved.float_layers) > 0 and held.achieved.drop <= limit
    recipe = load_recipe(tmp_path / "held" / "recipe.toml")
    assert recipe.quantize.float_layers == held.achieved.float_layers
    assert "float32" in {layer.encoding for layer in held.layers}


def test_integer_only_target_beyond_the_limit_is_exit_4(tmp_path, closeness, capsys) -> None:
    out = tmp_path / "out"
    options = ["--target", "cortex-m4", "--calib", TRAIN, *closeness, "--max-drop", "0.0001"]
    assert run("convert", MODEL, "-o", out, *options) == 4
    report = Report.model_validate_json((out / "report.json").read_text())
    assert report.status == "accuracy-limit-exceeded" and not report.achieved.float_layers
    assert (out / "digits.int8.tflite").exists()
    assert "accuracy-limit-exceeded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["convrt"], 2, "No such command 'convrt'"),
        ([], 2, "expected a command: "),
        (["convert"], 2, "Missing argument 'MODEL'"),
        (["convert", MODEL, "--tarjet", "x"], 2, "No such option"),
        (["convert", "missing.onnx"], 2, "missing.onnx"),
        (["convert", MODEL, "--target", "cortex-m5"], 2, "did you mean 'cortex-m"),
        (["convert", MODEL, "--target", "cortex-m4"], 2, "--calib FILE.npz with x of shape [samples, 1, 8"),
        (["convert", MODEL, "--target", "cortex-m4", "--format", "onnx"], 2, "cortex-m4 loads only tflite"),
        (["convert", MODEL, "--target", "ios", "--format", "pack"], 2, "ios loads only tflite, onnx"),
        (["convert", MODEL, "--format", "tflight"], 2, "should be 'onnx', 'tflite' or 'pack'"),
        (["convert", MODEL, "--recipe", MODEL], 2, "not valid TOML"),
        (["convert", MODEL, "--max-drop", "1"], 2, "max_drop needs evaluation data with labels"),
        (["convert", MODEL, "--max-drop", "-1"], 2, "max_drop"),
        (["convert", MODEL, "--calib", "none.npz"], 2, "none.npz"),
        (["convert", MODEL, "--preprocess", "scal=2"], 2, "unknown key 'scal': did you mean 'scale'?"),
        (["convert", MODEL, "--preprocess", "2"], 2, "expected KEY=VALUE"),
        (["convert", MODEL, "--input-shape", "1,1,8,8"], 2, "expected NAME:D1,D2,..."),
        (["convert", MODEL, "--set", "sr"], 2, "expected NAME=NUMBER"),
        (["convert", MODEL, "--set", "sr=1"], 2, "no such input"),
        (["convert", MODEL, "--input-shape", "pixels:99999999999999999999,1,8,8"], 2, "too large"),
        (["convert", MODEL, "--input-shape", "pixels:100000000,1,8,8"], 2, "too large"),
        (["convert", ""], 2, "'MODEL': is empty"),
        (["convert", MODEL, "--recipe", ""], 2, "'--recipe': is empty"),
        (["convert", MODEL, "-o", ""], 2, "'--output': is empty"),
        (["convert", MODEL, "--calib", ""], 2, "'--calib': is empty"),
        (["convert", MODEL, "--eval", ""], 2, "'--eval': is empty"),
        (["convert", MODEL, "--target-file", ""], 2, "'--target-file': is empty"),
        (["convert", MODEL, "--weights", ""], 2, "'--weights': is empty"),
        (["convert", MODEL, "-o", os.devnull + "/out"], 2, os.devnull),
        (["convert", MODEL, "-o", "x" * 300], 2, "name too long"),
        (["inspect", "missing.onnx"], 2, "missing.onnx"),
        (["targets", "show", "andriod"], 2, "did you mean 'android'?"),
    ],
)
def test_mistakes_are_one_line_on_stderr(tmp_path, monkeypatch, capsys, arguments, code, expected) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and expected in captured.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("room", "expected"),
    [("flash_bytes = 5000", "of flash, but tiny has 5,000 B"), ("ram_bytes = 1000", "of RAM, but tiny has 1,000 B")],
)
def test_a_model_that_does_not_fit_is_told_with_figures(tmp_path, capsys, room: str, expected: str) -> None:
    board = tmp_path / "board.toml"
    board.write_text(SMALL_BOARD + room)
    options = ["--target-file", board, "--calib", "not even looked at"]
    assert run("convert", MODEL, "-o", tmp_path / "out", *options) == 3
    error = capsys.readouterr().err
    assert "does not fit tiny" in error and expected in error and not (tmp_path / "out").exists()


def test_an_artifact_larger_than_flash_is_told_with_figures(tmp_path, capsys) -> None:
    board = tmp_path / "board.toml"
    board.write_text(SMALL_BOARD + "flash_bytes = 11000")  # room for the weights alone
    assert run("convert", MODEL, "-o", tmp_path / "out", "--target-file", board, "--calib", TRAIN) == 3
    assert "tiny has 11,000 B of flash" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_in_the_way_of_a_file_stops_before_any_is_written(tmp_path, capsys) -> None:
    (tmp_path / "report.json").mkdir()
    assert run("convert", MODEL, "-o", tmp_path) == 2
    assert "there is a folder of this name" in capsys.readouterr().err and os.listdir(tmp_path) == ["report.json"]


def test_a_full_disk_behind_stdout_is_no_defect(monkeypatch, capsys) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("edgecompress.targets.all_targets", full)
    assert run("targets") == 2
    assert capsys.readouterr().err == f"error: can't read or write: {os.strerror(errno.ENOSPC)}\n"


def test_constants_alone_are_converted_and_no_inputs_are_refused(tmp_path, capsys) -> None:
    for inputs, code in (("float[1, 2] x", 0), ("", 3)):
        text = (
            f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => (float[1, 2] y) '
            "<float[1, 2] w = {1, 2}> { y = Relu(w) }"
        )
        onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
        np.save(tmp_path / "d.npy", np.arange(8, dtype=np.float32).reshape(4, 1, 2))
        given = ["--calib", tmp_path / "d.npy"]
        assert run("convert", tmp_path / "m.onnx", "-o", tmp_path / "out", *given) == code
    assert "the model has no inputs" in capsys.readouterr().err


def test_an_input_is_never_overwritten(tmp_path, capsys) -> None:
    board = tmp_path / "recipe.toml"
    board.write_text(SMALL_BOARD)
    assert run("convert", MODEL, "-o", tmp_path, "--target-file", board, "--calib", TRAIN) == 2
    assert "is an input" in capsys.readouterr().err and board.read_text() == SMALL_BOARD
    recipe = tmp_path / "elsewhere" / "recipe.toml"
    recipe.parent.mkdir()
    recipe.write_text("# mine\n")
    assert run("convert", MODEL, "-o", recipe.parent, "--recipe", recipe) == 2
    assert recipe.read_text() == "# mine\n"
    model = tmp_path / "digits.onnx"
    shutil.copy(MODEL, model)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "digits.dynamic.onnx").symlink_to(model)
    assert run("convert", model, "-o", tmp_path / "out") == 2
    assert model.read_bytes() == MODEL.read_bytes()


def test_interruption_leaves_no_half_file(tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output.Path, "rename", interrupted)  # of a new folder, with all files in it
    assert run("convert", MODEL, "-o", tmp_path / "out") == 130
    assert [p for p in tmp_path.rglob("*") if p.is_file() or p.name.startswith(".")] == []
    assert capsys.readouterr().err.strip() == "error: interrupted"


def test_an_interruption_puts_the_run_before_back(tmp_path, monkeypatch) -> None:
    assert run("convert", MODEL, "-o", tmp_path, "--calib", TRAIN) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace = os.replace
    for at in range(8):  # two stale files out, four files in, two of them over another
        calls = iter(range(100))

        def interrupted(source: Path, target: Path, at: int = at, calls=calls) -> None:
            replace(source, target)
            if next(calls) == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(output.os, "replace", interrupted)
        assert run("convert", MODEL, "-o", tmp_path, "--format", "onnx", "--format", "tflite") == 130
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("goes_on", [False, True])
def test_ctrl_c_that_a_library_makes_an_error_of_its_own(tmp_path, monkeypatch, capsys, goes_on: bool) -> None:
    """As ONNX Runtime and pydantic do: the KeyboardInterrupt is gone, and another error or none is raised."""
    from edgecompress.evaluate import interpreters

    load = interpreters.OnnxRuntime.__init__

    def interrupted(self: object, *arguments: object, **options: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if not goes_on:
            raise RuntimeError("initialization failed") from None
        load(self, *arguments, **options)

    monkeypatch.setattr(interpreters.OnnxRuntime, "__init__", interrupted)
    assert run("convert", MODEL, "-o", tmp_path / "out", "--format", "onnx") == 130
    assert capsys.readouterr().err.strip() == "error: interrupted" and not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_artifacts_of_the_run_before_go(tmp_path, capsys) -> None:
    """Only those that its report lists, as they were written, in this folder, and that are no input now."""
    out, outside = tmp_path / "out", tmp_path / "mine.onnx"
    edgecompress.convert(MODEL, output=out, calib=TRAIN)
    capsys.readouterr()
    tflite, other = out / "digits.int8.tflite", out / "digits.int8.onnx"
    other.write_bytes(other.read_bytes() + b"changed")
    (out / "notes.txt").write_text("mine")
    outside.write_text("mine")
    report = json.loads((out / "report.json").read_text())
    report["artifacts"] += [
        {"path": f"../{outside.name}", "sha256": hashlib.sha256(b"mine").hexdigest()},
        {"path": str(outside), "sha256": hashlib.sha256(b"mine").hexdigest()},
        {"path": "notes.txt", "sha256": "0" * 64},
        {"path": None, "sha256": 3},
    ]
    (out / "report.json").write_text(json.dumps(report))
    edgecompress.convert(MODEL, output=out)
    made = {"digits.dynamic.onnx", "digits.dynamic.tflite", "recipe.toml", "report.html", "report.json"}
    assert set(os.listdir(out)) == made | {other.name, "notes.txt"} and not tflite.exists()
    assert outside.exists() and capsys.readouterr() == ("", "")
    edgecompress.convert(out / "digits.dynamic.onnx", output=out, recipe=Recipe(quantize={"weights": "float32"}))
    assert (out / "digits.dynamic.onnx").exists() and not (out / "digits.dynamic.tflite").exists()


@pytest.mark.parametrize("report", ["", "[]", '{"artifacts": 3}', '{"artifacts": [{}]}', "[" * 9999, "\0"])
def test_another_programs_report_is_no_hindrance(tmp_path, report: str) -> None:
    (tmp_path / "report.json").write_text(report)
    assert output.stale_files(tmp_path, "report.json", [], []) == []


def test_calibration_data_that_chooses_no_ranges_is_noted(tmp_path) -> None:
    recipe = Recipe(quantize={"activations": "float32"})
    result = edgecompress.convert(MODEL, output=tmp_path, calib=TRAIN, recipe=recipe, formats=["onnx"])
    assert any("was only used to check the artifacts" in note for note in result.report.notes)
    assert not any("calibration data would" in note for note in result.report.notes)
    result = edgecompress.convert(MODEL, output=tmp_path, calib=TRAIN, eval=TEST, recipe=recipe, formats=["onnx"])
    assert any("calibration data was not used" in note for note in result.report.notes)


@pytest.mark.parametrize("data", [None, np.random.default_rng(0).normal(size=(32, 3, 8, 8)).astype(np.float32)])
def test_an_input_that_is_an_output_in_every_format(tmp_path, data: np.ndarray | None) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,3,8,8] x) => (float[1,2,6,6] y, float[1,3,8,8] x) '
    model = onnx.parser.parse_model(text + "{ y = Conv(x, w) }")
    weights = np.random.default_rng(1).normal(size=(2, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    formats = ["onnx", "tflite", "pack"]
    result = edgecompress.convert(model, output=tmp_path, formats=formats, calib=data)
    for artifact in result.report.artifacts:
        assert all(c.error is None and (c.snr_db is None or c.snr_db > 30) for c in artifact.checks)
        assert [t.name for t in artifact.outputs] == ["y", "x_output"]


def test_a_defect_is_one_line_too_and_debug_shows_where(tmp_path, monkeypatch, capsys) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a defect\nin two lines")

    monkeypatch.setattr("edgecompress.api.convert", broken)
    assert run("convert", MODEL) == 1
    assert capsys.readouterr().err == (
        "error: unexpected ZeroDivisionError: a defect in two lines (run again with --debug for the traceback)\n"
    )
    assert run("convert", MODEL, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_inspect(capsys) -> None:
    assert run("inspect", MODEL, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(MODEL).graph.initializer]
    assert found["parameters"] >= sum(w.size for w in weights if w.dtype == np.float32 and w.ndim > 1)
    assert found["operators"]["Conv"] == sum(n.op_type == "Conv" for n in onnx.load(MODEL).graph.node)
    assert found["inputs"][0]["shape"] == [1, 1, 8, 8] and found["macs"] > 100_000
    fits = {t["name"]: t for t in found["targets"]}
    assert len(fits) >= 10 and all(t["fits"] and not t["reasons"] for t in fits.values())
    assert run("inspect", MODEL) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_inspect_says_why_a_target_does_not_fit(tmp_path) -> None:
    """600 x 600 weights and 600 biases are more than a Cortex-M0 has flash; Erf has no int8 kernel."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((600, 600), np.float32), "w")
    node = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Erf", ["h"], ["y"], name="error"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 600]) for name in "xy"]
    graph = helper.make_graph(node, "g", values[:1], values[1:], [weight])
    found = edgecompress.inspect(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    fits = {t.name: t for t in found.targets}
    assert fits["linux-x86"].fits
    assert not fits["cortex-m0"].fits
    assert "at least 362,400 B of flash, but cortex-m0 has 262,144 B" in "; ".join(fits["cortex-m0"].reasons)
    assert "Erf" in "; ".join(fits["cortex-m4"].reasons)


def test_targets(capsys) -> None:
    assert run("targets") == 0
    shown = capsys.readouterr().out
    assert "cortex-m55" in shown and "tflite, pack" in shown
    assert run("targets", "show", "cortex-m4") == 0
    assert re.search(r"loads +tflite, pack", capsys.readouterr().out)
    assert run("targets", "show", "cortex-m4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["ram_bytes"] == 655_360
    assert run("targets", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) >= 10


def test_result_shows_itself(tmp_path) -> None:
    result = edgecompress.convert(MODEL, output=tmp_path, formats=["onnx"])
    assert "digits.dynamic.onnx" in repr(result) and max(map(len, repr(result).splitlines())) <= 80
    assert result._repr_html_().startswith("<pre>") and "digits.dynamic.onnx" in result._repr_html_()
    assert result.ok and result.artifacts["onnx"].is_file()
    assert edgecompress.convert(MODEL, output=tmp_path, formats="onnx").artifacts.keys() == {"onnx"}
    result.report.requested.metric = "a[/b].py:f"  # square brackets are no markup
    result.report.achieved.float_value = 1.0
    assert "Accuracy: a[/b].py:f" in repr(result)
    result.report.artifacts[0].checks[0].error = "does not load"
    row = next(line for line in repr(result).splitlines() if "ONNX Runtime" in line)
    assert "failed" in row


def test_input_shape_names_may_hold_colons() -> None:
    assert parse_input_shapes(("a:0:1,3,8,8", "größe/b:2")) == {"a:0": (1, 3, 8, 8), "größe/b": (2,)}
    for wrong in ("a", "a:", ":1,2", "a:1,x", "a:0,2", "a:-1"):
        with pytest.raises(InputError):
            parse_input_shapes((wrong,))


def test_preprocess_text() -> None:
    assert parse_preprocess("scale=0.5,mean=1,2.5,3,layout=nhwc,resize=32,24,std=2") == {
        "scale": 0.5,
        "mean": [1, 2.5, 3],
        "layout": "nhwc",
        "resize": [32, 24],
        "std": [2],
    }
    assert parse_preprocess(None) == {}


@pytest.mark.parametrize(("seconds", "shown"), [(0.1, False), (1.6, True)])
def test_progress_shows_on_a_terminal_after_a_second(seconds: float, shown: bool) -> None:
    code = f"""
import time
from edgecompress.support.progress import progress
with progress("counting sheep", total=2) as advance:
    advance(1)
    time.sleep({seconds})
"""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=slave, stdout=slave, env=environment) as process:
        os.close(slave)
        seen = b""
        try:
            while chunk := os.read(master, 4096):
                seen += chunk
        except OSError:  # how Linux says that the other end has closed
            pass
    os.close(master)
    assert process.returncode == 0
    assert (b"counting sheep" in seen) is shown


@pytest.mark.parametrize("name", ["kws", "模型", "two words", "a.b", "x" * 100])
def test_artifacts_are_called_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also the default folder."""
    monkeypatch.chdir(tmp_path)
    model = Example("y = Relu(x)", {"x": (1, 4)}).model()
    result = edgecompress.convert(model, name=name, formats=["onnx", "tflite"])
    assert result.directory == Path(f"{name}-android")
    assert all(path.name.startswith(f"{name}.") and path.exists() for path in result.artifacts.values())


@pytest.mark.parametrize("name", ["", ".hidden", "-o", "a/b", "..", "a\\b", "a\x1b[2J", "a\nb", "a\u202eb", "x" * 101])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    code, _, error = command.edgecompress("convert", MODEL, f"--name={name}", "-o", tmp_path / "out")
    assert code == 2 and "expected what files can be called" in error and "\x1b" not in error
    assert not (tmp_path / "out").exists()
