"""Kills, full disks, folders that can't be written, and files that mean harm."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import edgecompress
from command import edgecompress as command
from disks import mounted
from edgecompress.errors import EdgeCompressError, InputError
from edgecompress.operators.example import Example
from edgecompress.recipe import load_recipe
from edgecompress.report.files import read_report
from edgecompress.support.output import write_files
from edgecompress.targets import load_target

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "samples" / "digits"
CONVERT = [sys.executable, "-m", "edgecompress", "convert", str(DIGITS / "digits.onnx"), "--target", "cortex-m4",
           "--format", "pack", "--calib", str(DIGITS / "train.npz"), "-q", "-o"]  # fmt: skip


def complete(folder: Path) -> bool:
    """Whether a conversion's folder is there; then all of it is, and whole."""
    if not folder.exists():
        return False
    report = json.loads((folder / "report.json").read_text())
    for artifact in report["artifacts"]:
        assert hashlib.sha256((folder / artifact["path"]).read_bytes()).hexdigest() == artifact["sha256"]
    assert (folder / "recipe.toml").read_text() == report["recipe"]
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    return True


@pytest.mark.long
def test_killed_conversions_leave_nothing_half_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    start = time.monotonic()
    subprocess.run([*CONVERT, str(out)], check=True, capture_output=True)
    whole, choose = time.monotonic() - start, random.Random(0)
    assert complete(out)
    shutil.rmtree(out)
    for _ in range(5):
        process = subprocess.Popen([*CONVERT, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(choose.uniform(0.3, 1.05) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        complete(out)
    subprocess.run([*CONVERT, str(out)], check=True, capture_output=True)
    assert complete(out) and os.listdir(tmp_path) == ["out"]
    assert not [name for name in os.listdir(out) if name.startswith(".")]


KILLED = """
import os, signal, sys
from functools import reduce
from operator import getitem
from pathlib import Path
from edgecompress import output
done, replace, rename = [], os.replace, Path.rename
def count(call):
    def counted(*arguments):
        if len(done) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(1)
        return call(*arguments)
    return counted
os.replace, Path.rename = count(replace), count(rename)
output.write_files(Path(sys.argv[1]), {"a": b"new a", "b": b"new b"}, ["stale"])
"""


@pytest.mark.parametrize("at", range(7))
def test_killed_between_any_two_steps_of_writing(tmp_path: Path, at: int) -> None:
    folder = tmp_path / "out"
    write_files(folder, {"a": b"old a", "b": b"old b", "stale": b"stale", "mine": b"mine"})
    subprocess.run([sys.executable, "-c", KILLED, str(folder), str(at)])
    assert (folder / "mine").read_bytes() == b"mine"
    write_files(folder, {"c": b"c"})  # of no name that was being written
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert left.pop("c") == b"c" and left.pop("mine") == b"mine"
    assert left.get("stale", b"stale") == b"stale" and left["a"] in (b"old a", b"new a")
    assert left["b"] in (b"old b", b"new b") and set(left) <= {"a", "b", "stale"}


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    from edgecompress.support.output import _PREFIX

    theirs = tmp_path / f"{_PREFIX}{os.getppid()}-x"
    theirs.mkdir()
    write_files(tmp_path / "out", {"a": b"a"})
    assert theirs.is_dir()


def test_full_disk(tmp_path: Path) -> None:
    edgecompress.convert(DIGITS / "digits.onnx", output=tmp_path / "made")
    dense = Example("y = MatMul(x, w)", {"x": (1, 200)}, {"w": (200, 40)}).model()
    calib = np.random.default_rng(0).normal(size=(16, 200)).astype(np.float32)
    pack = edgecompress.convert(
        dense, "cortex-m4", calib=calib, formats=["pack"], output=tmp_path / "packed"
    ).artifacts["pack"]
    with mounted(tmp_path / "small", "size=64k") as small:
        shutil.copy(tmp_path / "made" / "report.json", small)
        blocks = -(-(small / "report.json").stat().st_size // 4096)
        (small / "filling").write_bytes(bytes(65_536 - 4096 * (1 + blocks)))
        for arguments in (
            ("convert", DIGITS / "digits.onnx", "-o", small / "out"),
            ("build", pack, "--target", "cortex-m4", "-o", small / "built"),
            ("report", small),
        ):
            code, out, error = command(*arguments)
            assert code == 2 and "No space left on device" in error and error.count("\n") == 1 and not out
            assert sorted(os.listdir(small)) == ["filling", "report.json"]


def test_folder_on_a_disk_that_is_read_only(tmp_path: Path) -> None:
    edgecompress.convert(DIGITS / "digits.onnx", output=tmp_path / "made")
    with mounted(tmp_path / "fixed", "size=1m") as fixed:
        shutil.copytree(tmp_path / "made", fixed / "made")
        subprocess.run(["mount", "-o", "remount,ro", str(fixed)], check=True)
        for arguments in (
            ("convert", DIGITS / "digits.onnx", "-o", fixed / "out"),
            ("convert", DIGITS / "digits.onnx", "-o", fixed / "made"),
            ("report", fixed / "made"),
            ("compare", fixed / "made", "-o", fixed / "page.html"),
        ):
            code, _, error = command(*arguments)
            assert code == 2 and str(fixed) in error and error.count("\n") == 1
        assert complete(fixed / "made")


def test_names_in_a_model_choose_no_place_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    name = "../../../evil"
    weight = helper.make_tensor(f"{name}w", TensorProto.FLOAT, [4, 3], np.ones(12, np.float32))
    values = [helper.make_tensor_value_info(f"{name}{k}", TensorProto.FLOAT, [1, n]) for k, n in (("x", 4), ("y", 3))]
    node = helper.make_node("MatMul", [f"{name}x", f"{name}w"], [f"{name}y"], name=f"{name}node")
    graph = helper.make_graph([node], name, values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    calib = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    made = edgecompress.convert(model, "cortex-m4", calib=calib, formats=["pack", "tflite"])
    assert command("build", made.artifacts["pack"].absolute(), "--target", "cortex-m4")[0] == 0
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["b"]


FORBIDDEN = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "cloudpickle"}


@pytest.mark.parametrize("room", ["edgecompress", "runtime", "targets"])
def test_nothing_is_unpickled(room: str) -> None:
    """In the sources: no module that unpickles, NumPy's and torch's loaders only where they can't."""
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not {a.name.split(".")[0] for a in node.names} & FORBIDDEN, where
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in FORBIDDEN, where
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                given_ = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                if (owner, node.func.attr) == ("torch", "load"):
                    assert given_.get("weights_only") is True, where
                elif (owner in ("np", "numpy") and node.func.attr == "load") or node.func.attr == "read_array":
                    assert given_.get("allow_pickle", False) is False, where


CLAIM = """
import resource, sys
import numpy as np
from edgecompress.errors import EdgeCompressError
from edgecompress import convert
from edgecompress.ingest import load
convert(sys.argv[1], output="plain")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        load(path) if path.endswith(".onnx") else convert(sys.argv[1], calib=path, output="calibrated")
        print("read", path)
    except EdgeCompressError as error:
        assert "\\n" not in str(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_claim_in_a_header_takes_no_memory(tmp_path: Path) -> None:
    """Files of some hundred bytes that say they hold terabytes, each in megabytes: in a process of their own."""
    huge = 1 << 40
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (huge, 8, 8)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [0.0, 0.0])
    del tensor.dims[:], tensor.float_data[:]
    tensor.dims.extend([1 << 20, 1 << 20])
    tensor.raw_data = bytes(8)
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 20, 1 << 20])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    for name, node, initializers in (
        ("weight", helper.make_node("Identity", ["w"], ["y"]), [tensor]),
        ("filled", helper.make_node("ConstantOfShape", ["shape"], ["y"]), [shape]),
        ("expanded", helper.make_node("Expand", ["x", "shape"], ["y"]), [shape]),
    ):
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])]
        graph = helper.make_graph([node], name, inputs, [output], initializers)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        (tmp_path / f"{name}.onnx").write_bytes(made.SerializeToString())
    files = sorted(str(p) for p in tmp_path.iterdir())
    assert len(files) == 5
    done = subprocess.run(
        [sys.executable, "-c", CLAIM, str(DIGITS / "digits.onnx"), *files],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "read" not in done.stdout and int(done.stdout.split()[-1]) < 200, done.stdout


def refused_in_one_line(read, path: Path) -> None:
    try:
        read(path)
    except InputError as error:
        assert path.name in str(error)


KEYS = ["seed", "train", "prune", "cluster", "quantize", "emit", "epochs", "bits", "macs", "formats", "keep", "name",
        "features", "mean", "flash_bytes", "cpu", "inf", "nan", "pattern"]  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.sampled_from(KEYS)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)


def toml_of(table: dict) -> str:
    from edgecompress.support.toml import toml_value

    return "".join(f"{key} = {toml_value(value)}\n" for key, value in table.items())


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5) | st.text(max_size=40))
def test_any_recipe_or_profile_is_read_or_refused(tmp_path_factory, content) -> None:
    path = tmp_path_factory.mktemp("toml") / "some.toml"
    path.write_text(content if isinstance(content, str) else toml_of(content), encoding="utf-8", errors="replace")
    refused_in_one_line(load_recipe, path)
    refused_in_one_line(lambda p: load_target("android", p), path)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report") / "out"
    edgecompress.convert(DIGITS / "digits.onnx", output=folder)
    return (folder / "report.json").read_text()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_report_is_shown_or_refused(tmp_path_factory, report: str, data: st.DataObject) -> None:
    """Values of a real one changed: what passes the schema must make a page."""
    from edgecompress.report.html import page

    changed = json.loads(report)
    for _ in range(data.draw(st.integers(1, 3))):
        place = changed
        while isinstance(place, (dict, list)) and place:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], (dict, list)) or data.draw(st.integers(0, 5)) == 0:
                place[key] = data.draw(VALUES)
                break
            place = place[key]
    path = tmp_path_factory.mktemp("changed") / "report.json"
    path.write_text(json.dumps(changed))
    try:
        found = read_report(path)
    except InputError:
        return
    assert page(found).rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("artifacts",), []),
        (("artifacts", 0, "bytes"), 0),
        (("layers", 0, "histogram", "after"), []),
        (("layers", 0, "histogram", "after", 0), -1),
    ],
)
def test_reports_that_made_no_page_are_refused(tmp_path, report: str, place: tuple, value) -> None:
    """Found by the test above."""
    changed = json.loads(report)
    outer = reduce(getitem, place[:-1], changed)
    outer[place[-1]] = value
    path = tmp_path / "report.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=re.escape(".".join(map(str, place)))):
        read_report(path)


OPERATORS = ["Conv", "Gemm", "Reshape", "Concat", "Loop", "Add", "Softmax", "QuantizeLinear", "DequantizeLinear", "?"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_models_with_parts_exchanged_are_read_or_refused(data: st.DataObject) -> None:
    """Structure, not bytes: inputs, attributes, shapes and types of a real model changed."""
    from edgecompress.ingest import load

    model = onnx.load(DIGITS / "digits.onnx")
    names = [*(v.name for v in model.graph.initializer), *(o for n in model.graph.node for o in n.output), "", "nobody"]
    for _ in range(data.draw(st.integers(1, 4))):
        node = data.draw(st.sampled_from(list(model.graph.node)))
        what = data.draw(st.integers(0, 5))
        if what == 0 and node.input:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
        elif what == 1 and node.attribute:
            attribute = data.draw(st.sampled_from(list(node.attribute)))
            if attribute.ints:
                attribute.ints[data.draw(st.integers(0, len(attribute.ints) - 1))] = data.draw(st.integers(-3, 2**40))
            else:
                attribute.i = data.draw(st.integers(-(2**63), 2**63 - 1))
        elif what == 2:
            node.op_type = data.draw(st.sampled_from(OPERATORS))
        elif what == 3:
            tensor = data.draw(st.sampled_from([t for t in model.graph.initializer if t.dims]))
            tensor.dims[data.draw(st.integers(0, len(tensor.dims) - 1))] = data.draw(st.integers(-2, 2**33))
        elif what == 4:
            data.draw(st.sampled_from(list(model.graph.initializer))).data_type = data.draw(st.integers(0, 25))
        else:
            del node.output[:]
    try:
        load(model)
    except EdgeCompressError as error:
        assert "\n" not in str(error)
