"""`.pack` files end to end: converted, run by the runtime, inspected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgecompress
import edgecompress_runtime
from edgecompress.cli import cli
from edgecompress.errors import InputError
from edgecompress.inspection.pack_inspection import inspect_pack
from edgecompress.report.entropy import entropy
from edgecompress_runtime.pack import read_pack, write_pack
from edgecompress_runtime.plan import Plan, Tensor

DIGITS = Path(__file__).parents[1] / "samples" / "digits"


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> edgecompress.Result:
    folder = tmp_path_factory.mktemp("pack")
    return edgecompress.convert(
        DIGITS / "digits.onnx",
        "cortex-m4",
        calib=DIGITS / "train.npz",
        eval=DIGITS / "test.npz",
        formats=["pack", "tflite"],
        output=folder,
    )


def test_the_runtime_gives_the_bits_of_tflm(converted):
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    model = edgecompress_runtime.load(converted.artifacts["pack"])
    micro = runtime.Interpreter.from_file(str(converted.artifacts["tflite"]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.integers(-128, 128, model.inputs[0].shape).astype(np.int8)
        micro.set_input(x, 0)
        micro.invoke()
        assert np.array_equal(model(x), micro.get_output(0))


def test_the_report_has_the_pack_s_own_accuracy_and_it_is_the_smaller_file(converted):
    pack, tflite = converted.report.artifacts
    assert pack.format == "pack" and pack.bytes < tflite.bytes
    assert [(c.interpreter, c.samples, c.error) for c in pack.checks] == [("edgecompress-runtime", 450, None)]
    assert pack.checks[0].value >= pack.checks[0].reference_value - 1


def test_inspect_adds_up(converted):
    path = converted.artifacts["pack"]
    found = inspect_pack(path)
    assert found.bytes == path.stat().st_size
    assert sum(c.bytes for c in found.constants) < found.bytes
    assert [s.kind for s in found.plan][:2] == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    for constant in found.constants:
        if constant.encoding == "huffman":
            assert constant.bits_per_value >= constant.entropy_bits - 1e-9
    shown = CliRunner().invoke(cli, ["inspect", str(path), "--json"])
    assert json.loads(shown.stdout) == json.loads(found.to_json())
    assert {c.encoding for c in found.constants if c.dtype == "int32" and c.shape == [48]} == {"golomb"}
    readers = [found.plan[c.operator - 1].kind for c in found.constants if len(c.shape) == 4]
    assert set(readers) == {"CONV_2D", "DEPTHWISE_CONV_2D"}
    graph = read_pack(path).graph
    ends = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
    assert [(v.dtype, v.shape) for v in (*found.inputs, *found.outputs)] == [("int8", list(t.shape)) for t in ends]


def test_what_inspect_shows_is_what_a_reader_adds_up(converted, tmp_path):
    path = converted.artifacts["pack"]
    shown = CliRunner().invoke(cli, ["inspect", str(path)]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    total = {line[:27].strip(): line[27:].split() for line in shown[shown.index("Total") :].splitlines()}
    pack = read_pack(path)
    weights = [t.data for t in pack.plan().tensors if t.data is not None and t.dtype == np.int8]
    count, bound = sum(a.size for a in weights), sum(entropy(a) * a.size for a in weights)
    held = sum(len(e.data) for t, e in zip(pack.graph.tensors, pack.encoded, strict=True) if e and t.dtype == np.int8)
    assert total["weights"][0] == f"{count:,}" and f"{held:,}" == total["weights"][1]
    assert total["weights"][-2:] == [f"{8 * held / count:.2f}", f"{bound / count:.2f}"]
    assert f"{path.stat().st_size:,}" in total["file"] and "100.0" in total["file"]


def test_a_blob_that_constants_share_is_counted_once(tmp_path):
    weights = np.random.default_rng(0).integers(-128, 128, (40, 50)).astype(np.int8)
    twice = tuple(Tensor(name, weights.shape, weights.dtype, data=weights) for name in "ab")
    (tmp_path / "twice.pack").write_bytes(write_pack(Plan(twice, (), (), (0, 1)), "twice"))
    found = inspect_pack(tmp_path / "twice.pack")
    assert [(c.bytes, c.encoding) for c in found.constants] == [(2000, "raw"), (0, "raw, shared")]
    assert sum(c.bytes for c in found.constants) < found.bytes


def test_an_encoding_names_what_it_is_built_on(tmp_path):
    rng = np.random.default_rng(0)
    pruned = (rng.integers(-9, 9, 4000) * (rng.random(4000) < 0.05)).astype(np.int8)
    plan = Plan((Tensor("p", pruned.shape, pruned.dtype, data=pruned),), (), (), (0,))
    (tmp_path / "p.pack").write_bytes(write_pack(plan, "p"))
    (found,) = inspect_pack(tmp_path / "p.pack").constants
    assert found.encoding == "sparse (gaps bitpacked, values huffman)" and found.distinct == len(np.unique(pruned))


def test_a_damaged_pack_is_one_line(converted, tmp_path):
    data = bytearray(converted.artifacts["pack"].read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.pack"
    damaged.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged.pack") as caught:
        inspect_pack(damaged)
    assert len(str(caught.value).splitlines()) == 1


def test_entropy_of_known_distributions():
    assert entropy(np.arange(256)) == 8
    assert entropy(np.zeros(9)) == 0
    assert entropy(np.array([0, 0, 0, 1])) == pytest.approx(0.811278, abs=1e-6)


def test_a_recipe_clusters_the_weights_and_only_the_pack_shrinks(converted, tmp_path):
    recipe = tmp_path / "clustered.toml"
    recipe.write_text("[cluster]\nbits = 3\n")
    result = edgecompress.convert(
        DIGITS / "digits.onnx",
        "cortex-m4",
        calib=DIGITS / "train.npz",
        eval=DIGITS / "test.npz",
        formats=["pack", "tflite"],
        recipe=recipe,
        output=tmp_path / "out",
    )
    (plain, _), (pack, tflite) = converted.report.artifacts, result.report.artifacts
    assert pack.bytes < 0.65 * plain.bytes and pack.bytes < tflite.bytes
    assert pack.checks[0].value >= 96
    down = next(layer for layer in result.report.layers if layer.encoding.endswith("8 values"))
    assert down.bits_per_weight <= 3 and "clustered" in down.cause


@pytest.mark.long
@pytest.mark.parametrize("precision, bytes_each", [("float32", 4), ("float16", 2)])
def test_clusters_of_float_weights_are_small_and_what_stays_large_is_said(tmp_path, precision, bytes_each):
    results = {}
    for name, section in {"plain": "", "small": "[cluster]\nbits = 4\n"}.items():
        (tmp_path / "recipe.toml").write_text(f'[quantize]\nweights = "{precision}"\n{section}')
        results[name] = edgecompress.convert(
            DIGITS / "digits.onnx",
            "linux-x86",
            calib=DIGITS / "train.npz",
            eval=DIGITS / "test.npz",
            formats=["pack", "onnx", "tflite"],
            recipe=tmp_path / "recipe.toml",
            output=tmp_path / name,
        )
    report = results["small"].report
    weights = sum(layer.weights or 0 for layer in report.layers)
    (pack, onnx, tflite), plain = ([a.bytes for a in r.report.artifacts] for r in (results["small"], results["plain"]))
    assert plain[0] - pack > (bytes_each - 0.65) * weights and plain[1] - onnx > (bytes_each - 0.65) * weights
    assert tflite == plain[2]
    assert [note for note in report.notes if "clustering does not make" in note] == [
        "clustering does not make the .tflite file smaller: TFLite has no table look-up that an interpreter evaluates "
        "once, when it loads the file"
    ]
    assert any("calibration data was only used to choose the clusters" in note for note in report.notes)
    assert all(check.error is None and check.value >= 96 for a in report.artifacts for check in a.checks)
    (goal,) = report.goals
    assert (goal.unit, goal.requested) == ("bits", 4) and 3 < goal.achieved < 5
    held = sum(c.bytes for c in inspect_pack(results["small"].artifacts["pack"]).constants if len(c.shape) > 1)
    assert goal.achieved == pytest.approx(8 * held / weights, abs=0.8)  # and the codebooks, which the header has
    assert "16 values" in report.layers[0].encoding
    for page in (str(results["small"]), (results["small"].directory / "report.html").read_text()):
        assert "bits a weight" in page and f"{goal.achieved:.2f}: entropy coded" in page


def test_training_of_clusters_that_nobody_asked_for_is_refused(tmp_path):
    (tmp_path / "recipe.toml").write_text("[cluster]\nepochs = 2\n")
    with pytest.raises(
        edgecompress.InputError, match=r".cluster. epochs trains clusters, but none are asked for: add bits"
    ):
        edgecompress.convert(DIGITS / "digits.onnx", recipe=tmp_path / "recipe.toml", output=tmp_path / "out")


def test_clustered_weights_are_small_in_onnx_too_and_still_fuse(converted, tmp_path):
    import onnx
    import onnxruntime

    recipe = tmp_path / "clustered.toml"
    recipe.write_text("[cluster]\nbits = 4\n")
    options = {"calib": DIGITS / "train.npz", "formats": ["onnx"]}
    plain = edgecompress.convert(DIGITS / "digits.onnx", **options, output=tmp_path / "plain")
    small = edgecompress.convert(DIGITS / "digits.onnx", **options, recipe=recipe, output=tmp_path / "small")
    weights = plain.report.model.parameters
    assert plain.report.artifacts[0].bytes - small.report.artifacts[0].bytes > 0.45 * weights
    assert small.report.artifacts[0].checks[0].error is None
    kinds = []
    for result in (plain, small):
        session = onnxruntime.SessionOptions()
        session.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        session.log_severity_level = 3
        onnxruntime.InferenceSession(str(result.artifacts["onnx"]), session)
        kinds.append(sorted(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node))
    assert kinds[0] == kinds[1] and "QLinearConv" in kinds[0]
