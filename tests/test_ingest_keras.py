"""Keras files and SavedModels against what Keras itself computes, and what TFMOT decided, in the artifacts."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgecompress
from command import edgecompress as command
from edgecompress.errors import InputError, MissingPackageError
from edgecompress.evaluate.interpreters import OnnxRuntime
from edgecompress.graph.annotations import codebook, sparsity
from edgecompress.graph.fusion import constant
from edgecompress.ingest import keras_model, load

HERE = Path(__file__).parent
DIGITS = HERE.parent / "samples" / "digits"
NEEDED = ("tensorflow", "tf_keras", "tensorflow_model_optimization", "tf2onnx")
MISSING = [name for name in NEEDED if find_spec(name) is None]
TENSORFLOW = pytest.mark.skipif(bool(MISSING), reason=f'not installed: {", ".join(MISSING)} (extra "tensorflow")')
FILES = ("keras2.keras", "keras2.h5", "saved2", "pruned.h5", "pruned.keras", "clustered.h5",
         "annotated.h5", "keras3.keras", "keras3.h5", "saved3")  # fmt: skip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, by both versions at the same time; tests that run side by side wait for who came first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "keras"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            with ThreadPoolExecutor() as pool:
                for made in pool.map(partial(_make, folder), "23"):
                    assert made.returncode == 0, made.stderr[-3000:]
            (folder / "whole").touch()
    return folder


def _make(folder: Path, version: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, HERE / "keras_models.py", folder, version]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def dense_bytes(models: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Of the network's pack, before anything was pruned."""
    made = edgecompress.convert(
        models / "keras2.h5",
        "cortex-m4",
        calib=DIGITS / "train.npz",
        formats=["pack"],
        output=tmp_path_factory.mktemp("dense") / "out",
    )
    return made.report.artifacts[0].bytes


def images() -> np.ndarray:
    return np.load(DIGITS / "test.npz")["x"].reshape(-1, 1, 8, 8).astype(np.float32)[:32]


@TENSORFLOW
@pytest.mark.parametrize("name", FILES)
def test_outputs_are_keras_own(models: Path, name: str) -> None:
    found = load(models / name)
    (value,) = found.model.graph.inputs
    assert value.name == "image" and tuple(value.shape.numpy()) == (1, 1, 8, 8)
    (outputs,) = OnnxRuntime(found.model).run({value.name: images()})
    np.testing.assert_allclose(outputs, np.load(models / f"{name}.npy"), atol=1e-4)
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    assert "BatchNormalization" not in {n.op_type for n in found.model.graph}


@TENSORFLOW
@pytest.mark.parametrize("name", ["keras3.keras", "saved2"])
def test_no_transpose_is_left(models: Path, tmp_path: Path, name: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    made = edgecompress.convert(
        models / name, "android", calib=DIGITS / "train.npz", eval=DIGITS / "test.npz", output=tmp_path / "out"
    )
    interpreter = Interpreter(model_path=str(made.artifacts["tflite"]))
    assert "TRANSPOSE" not in {op["op_name"] for op in interpreter._get_ops_details()}
    assert made.report.achieved.drop < 1.5 and made.report.model.format in ("keras", "saved_model")
    assert made.report.model.bytes > 9000


@TENSORFLOW
@pytest.mark.parametrize("name", ["pruned.h5", "pruned.keras"])
def test_pruned_weights_stay_zero(models: Path, dense_bytes: int, tmp_path: Path, name: str) -> None:
    found = load(models / name)
    masks = {v.name: sparsity(v) for v in found.model.graph.initializers.values() if sparsity(v) is not None}
    assert len(masks) >= 3 and all((~m.mask).mean() == pytest.approx(0.6, abs=0.06) for m in masks.values())
    made = edgecompress.convert(
        models / name,
        "cortex-m4",
        calib=DIGITS / "train.npz",
        eval=DIGITS / "test.npz",
        formats=["pack"],
        output=tmp_path / "out",
    )
    sparse = [x.sparsity for x in made.report.layers if x.sparsity and x.sparsity > 0.5]
    assert len(sparse) >= 3 and any("zeros" in note for note in made.report.notes)
    assert made.report.artifacts[0].bytes < 0.85 * dense_bytes


@TENSORFLOW
def test_clusters_survive_folding(models: Path, tmp_path: Path) -> None:
    found = load(models / "clustered.h5")
    values = [v for v in found.model.graph.initializers.values() if codebook(v) is not None]
    books = {v.name: (codebook(v), constant(v)) for v in values}
    assert len(books) == 3  # the depthwise weights are not clustered by TFMOT
    for book, weight in books.values():
        assert len(book.centroids) <= 16
        np.testing.assert_allclose(book.values(), weight, atol=1e-5 * np.abs(weight).max())
    folded = max(books.values(), key=lambda pair: pair[0].scale.std())
    assert len(np.unique(folded[1])) > 16, "a BatchNormalization gives each channel values of its own"
    made = edgecompress.convert(
        models / "clustered.h5",
        "cortex-m4",
        calib=DIGITS / "train.npz",
        eval=DIGITS / "test.npz",
        formats=["pack"],
        output=tmp_path / "out",
    )
    held = [x for x in made.report.layers if x.weights and "values" in x.encoding]
    assert len(held) == 3 and all(x.bits_per_weight <= 5 for x in held) and made.report.achieved.drop < 1.5
    small = edgecompress.convert(
        models / "clustered.h5", "android", calib=DIGITS / "train.npz", formats=["onnx"], output=tmp_path / "onnx"
    )
    types = [t.data_type for t in onnx.load(small.artifacts["onnx"]).graph.initializer]
    assert onnx.TensorProto.UINT4 in types


@TENSORFLOW
@pytest.mark.parametrize("name", ["aware.h5", "aware"])
def test_what_was_trained_for_int8_is_what_tensorflow_makes_of_it(models: Path, tmp_path: Path, name: str) -> None:
    made = edgecompress.convert(
        models / name,
        "android",
        calib=DIGITS / "train.npz",
        eval=DIGITS / "test.npz",
        formats=["tflite"],
        output=tmp_path / "out",
    )
    x = np.load(DIGITS / "test.npz")["x"].reshape(-1, 1, 8, 8, 1).astype(np.float32)
    (ours, scales), (theirs, their_scales) = (_run(f, x) for f in (made.artifacts["tflite"], models / "aware.tflite"))
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.995
    np.testing.assert_allclose(ours, theirs, atol=1 / 128)  # their probabilities are int8
    assert scales == their_scales and len(scales) >= 5
    assert any("values keep their scales" in note for note in made.report.notes)


def _run(path: Path, samples: np.ndarray) -> tuple[np.ndarray, set[tuple[str, int]]]:
    """Outputs in LiteRT, and scales and zero points of what is int8 but neither weight nor probability."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for x in samples:
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    found = [d["quantization"] for d in interpreter.get_tensor_details() if d["dtype"] == np.int8]
    return np.array(outputs), {(f"{s:.5g}", z) for s, z in found if s != 1 / 256 and z}


@TENSORFLOW
def test_code_in_a_file_is_not_run(models: Path, tmp_path: Path) -> None:
    for name in ("lambda.keras", "lambda.h5"):
        code, _, error = command("convert", models / name, "-o", tmp_path / "out")
        assert code == 2 and "--trust-code" in error and error.count("\n") == 1
        assert command("inspect", models / name, "--trust-code")[0] == 0


@TENSORFLOW
def test_bad_files(models: Path, tmp_path: Path) -> None:
    whole = (models / "keras3.keras").read_bytes()
    for name, content, expected in (
        ("cut.keras", whole[: len(whole) // 2], "neither a .keras nor an HDF5 file"),
        ("text.h5", b"no model", "neither a .keras nor an HDF5 file"),
        ("only.h5", (models / "only.weights.h5").read_bytes(), "only weights and no model"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=expected):
            load(tmp_path / name)
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\xff" * 20)
    with pytest.raises(InputError, match="can't load it"):
        load(folder)


def test_without_tensorflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_model, "find_spec", lambda name: None)
    (tmp_path / "some.keras").write_bytes(b"")
    with pytest.raises(MissingPackageError, match=r"edgecompress\[tensorflow\]"):
        load(tmp_path / "some.keras")
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.h5")


def test_a_channels_factor_is_found_among_other_kernels() -> None:
    """Without TensorFlow: 16 values, other factors for each channel, one of them negative."""
    random = np.random.default_rng(0)
    centroids = np.sort(random.normal(size=16)).astype(np.float32)
    kernel = centroids[random.integers(0, 16, (3, 3, 8, 6))]
    other = centroids[random.integers(0, 16, (3, 3, 8, 6))]
    factors = np.array([1, 0.5, -2, 3, 0.1, 1], np.float32)
    weight = (kernel * factors).transpose(3, 2, 0, 1).copy()
    book = keras_model._codebook(weight, (other, kernel))
    np.testing.assert_allclose(book.scale, factors, rtol=1e-5)
    np.testing.assert_array_equal(book.values(), book.centroids[book.indices] * book.scale[:, None, None, None])
    assert keras_model._codebook(weight + random.normal(0, 1e-3, weight.shape), (kernel,)) is None
    assert json.dumps(list(map(float, book.centroids))) == json.dumps(list(map(float, centroids)))
