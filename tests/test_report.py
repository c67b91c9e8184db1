"""report.json against its published schema, and report.html in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import edgecompress
from command import edgecompress as command
from edgecompress.report.files import read_report
from edgecompress.report.json_schema import PATH, schema
from edgecompress.report.layers import report_layers

DIGITS = Path(__file__).parent.parent / "samples" / "digits"
MODEL, TRAIN, TEST = DIGITS / "digits.onnx", DIGITS / "train.npz", DIGITS / "test.npz"
CHROMIUM = shutil.which("chromium")
TRAINING = """
[train]
epochs = 2
lr = 0.002
optimizer = "adam"
metric = "top1"
[prune]
sparsity = 0.5
"""
NAMES = ("plain", "int8", "clustered", "failed", "device", "trained", "hostile")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The output folder of each kind of conversion."""
    work = tmp_path_factory.mktemp("reports")
    (work / "few.toml").write_text("[cluster]\nbits = 3\n")
    (work / "two.toml").write_text("[cluster]\nbits = 1\n")
    (work / "train.toml").write_text(TRAINING)
    both = {"calib": TRAIN, "eval": TEST}
    pack = {"target": "cortex-m4", "formats": ["pack"], **both}
    made = {
        "plain": lambda: {},
        "int8": lambda: {"target": "cortex-m4", "formats": ["pack", "tflite"], **both},
        "clustered": lambda: {"recipe": work / "few.toml", **pack},
        "failed": lambda: {"recipe": work / "two.toml", "max_drop": 0.0, **pack},
        "device": lambda: {"devices": ["local"], **pack},
        "trained": lambda: {"train": TRAIN, "recipe": work / "train.toml", **pack},
    }
    for name, arguments in made.items():
        edgecompress.convert(MODEL, output=work / name, **arguments())
    edgecompress.convert(_hostile(), output=work / "hostile")
    return {name: work / name for name in NAMES}


def _hostile() -> onnx.ModelProto:
    """Every name that a model may choose is markup."""
    name = "<script>document.title='owned'</script>"
    weight = helper.make_tensor(f"{name}w", TensorProto.FLOAT, [4, 3], np.arange(12, dtype=np.float32))
    values = [helper.make_tensor_value_info(f"{name}{k}", TensorProto.FLOAT, [1, n]) for k, n in (("x", 4), ("y", 3))]
    node = helper.make_node("MatMul", [f"{name}x", f"{name}w"], [f"{name}y"], name=f"{name}node")
    graph = helper.make_graph([node], name, values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_the_published_schema_is_the_models() -> None:
    assert PATH.read_text() == schema(), "python -m edgecompress.report.json_schema"


@pytest.mark.parametrize("name", NAMES)
def test_reports_keep_to_the_schema(folders: dict[str, Path], name: str) -> None:
    report = json.loads((folders[name] / "report.json").read_text())
    jsonschema.validate(report, json.loads(PATH.read_text()))
    assert report["recipe"] == (folders[name] / "recipe.toml").read_text()
    report["layers"][0]["snr_db"] = "loud"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, json.loads(PATH.read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_pages_stand_alone(folders: dict[str, Path], name: str) -> None:
    page = (folders[name] / "report.html").read_bytes()
    assert len(page) < 1e6
    assert not re.search(rb"""(src|href)\s*=\s*["'](?!data:,)|@import|url\(""", page)
    assert (page.count(b"<script>") == 1 and b"&lt;script&gt;" in page) or name != "hostile"


def test_histograms_and_memory(folders: dict[str, Path]) -> None:
    report = read_report(folders["clustered"])
    clustered = [x for x in report.layers if x.histogram is not None]
    assert sum(x.weights for x in clustered) > 9000
    for layer in clustered:
        assert sum(layer.histogram.after) == sum(layer.histogram.before) == layer.weights
    plan = report.memory
    assert plan is not None and plan.bytes == max(b.offset + b.bytes for b in plan.buffers)
    for i, a in enumerate(plan.buffers):  # by brute force: what is needed at the same time is apart
        for b in plan.buffers[:i]:
            together = a.first < b.last and b.first < a.last
            assert not together or a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
    trained = read_report(folders["trained"])
    assert max(x.sparsity or 0 for x in trained.layers) > 0.4


@pytest.mark.parametrize("ulps, bins", [(0, 48), (1, 1), (20, 1), (4800, 48)])
def test_weights_that_hardly_differ_have_a_histogram(ulps: int, bins: int) -> None:
    """Between 0.25 and so many steps of float32 above it, there may be fewer numbers than edges of bins."""
    values = np.full((8, 8), 0.25, np.float32)
    values[0, 0] += ulps * np.spacing(np.float32(0.25))
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "layer")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y], [onnx.numpy_helper.from_array(values, "w")])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    (layer,) = report_layers(model, {}, model, {})
    assert len(layer.histogram.after) == len(layer.histogram.before) == bins
    assert sum(layer.histogram.after) == 64


def test_report_makes_the_same_page_again(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(folders["clustered"], folder)
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    code, out, _ = command("report", folder)
    assert code == 0 and "Requested and achieved" in out
    assert (folder / "report.html").read_bytes() == page
    assert command("report", folder, "--json")[1] == (folder / "report.json").read_text()


def test_compare(folders: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    code, out, _ = command("compare", folders["int8"], folders["clustered"], "-o", page)
    assert code == 0 and out.count(".pack") == 2 and max(map(len, out.splitlines())) <= 80
    assert "clustered: .pack" in page.read_text()
    code, out, _ = command("compare", folders["int8"], folders["clustered"], "--json")
    assert [r["name"] for r in json.loads(out)] == ["int8", "clustered"]


def test_what_is_no_report_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    report = json.loads((folders["plain"] / "report.json").read_text())
    del report["model"]["macs"]
    cases = (None, "No such file"), ("{", "report.json: no report"), (json.dumps(report), "model.macs")
    for content, expected in cases:
        if content is not None:
            (tmp_path / "report.json").write_text(content)
        for name in ("report", "compare"):
            code, _, error = command(name, tmp_path)
            assert code == 2 and expected in error and error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="not installed: playwright")
    if CHROMIUM is None:
        pytest.skip("not installed: chromium (apt install chromium)")
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with playwright.sync_playwright() as p, p.chromium.launch(executable_path=CHROMIUM, args=quiet) as launched:
        yield launched


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_in_a_browser(folders: dict[str, Path], browser, name: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto((folders[name] / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.title() != "owned"
    bright = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (min(bright) > 200) if scheme == "light" else (max(bright) < 60)
    assert [what for what in said if not what.startswith(("file:", "data:"))] == []
    page.close()


def test_layers_are_sorted_by_a_click(folders: dict[str, Path], browser) -> None:
    page = browser.new_page()
    page.goto((folders["clustered"] / "report.html").as_uri())
    cells = "[...document.querySelectorAll('#layers tbody tr')].map(r => r.cells[3].dataset.value)"
    for expected in (sorted, lambda numbers: sorted(numbers, reverse=True)):
        page.click("#layers th:nth-child(4) button")
        known = [float(v) for v in page.evaluate(cells) if v != ""]
        assert known == expected(known) and len(set(known)) > 2
        assert page.evaluate(cells)[-1] == ""  # layers without weights are last
    page.close()
