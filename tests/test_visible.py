"""No control, bidirectional or invisible character of a stranger's text reaches a terminal, a log, HTML or C."""

from __future__ import annotations

import ast
import json
import logging
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table

from command import edgecompress
from edgecompress.errors import InputError, UnsupportedModelError
from edgecompress.report.tables import as_html, as_text, table
from edgecompress.support.log import LOGGER
from edgecompress.visible import visible
from edgecompress_runtime.building.c_header import _comment

ROOT = Path(__file__).parent.parent
SUSPECT = {
    "C0": "".join(map(chr, (*range(9), *range(11, 32)))),
    "DEL and C1": "".join(map(chr, range(0x7F, 0xA0))),
    "clipboard": "\x1b]52;c;cm0gLXJmIH4=\x1b\\",
    "clear the screen": "\x1b[2J\x1b[31m",
    "overrides": "".join(map(chr, range(0x202A, 0x202F))),
    "isolates": "".join(map(chr, range(0x2066, 0x206A))),
    "no width": "\u200b\u200c\u200d\u2060\ufeff\u00ad",
    "marks of direction": "\u200e\u200f\u061c",
    "lines": "\u2028\u2029",
    "tags": "\U000e0001\U000e0041",
    "half pairs": "\ud800\udfff",
}
HOSTILE = "name" + "".join(SUSPECT.values()) + "end"
IN_PROTOBUF = HOSTILE.replace("\ud800", "").replace("\udfff", "").replace("\0", "")  # which takes UTF-8 only


def assert_seen(text: str) -> None:
    found = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"}
    assert not found, sorted(map(ascii, found))


@pytest.mark.parametrize("kind", SUSPECT)
def test_every_suspect_character_is_written_out(kind: str) -> None:
    text = visible(f"a{SUSPECT[kind]}b")
    assert_seen(text)
    whole = SUSPECT[kind].encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert json.loads(visible(json.dumps(whole, ensure_ascii=False))) == whole
    assert visible(text) == text


@pytest.mark.parametrize(
    "text", ["", "plain", "ünï 漢字 العربية עברית", "│ ━ é", "two\nlines\tand a tab", "👍🏽", "\\u001b"]
)
def test_what_can_be_seen_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("kind", [InputError, UnsupportedModelError])
def test_errors(kind: type[Exception]) -> None:
    assert_seen(str(kind(f"{HOSTILE}: no such file")))


def test_log(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    try:
        LOGGER.warning("%s: %d\nnot a line of its own", HOSTILE, 7)
    finally:
        LOGGER.removeHandler(handler)
    assert_seen(seen[0])
    assert "\n" not in seen[0]
    assert seen[0].startswith("name") and "7" in seen[0]


@pytest.mark.parametrize("show", [as_text, as_html])
def test_tables(show: object) -> None:
    made = table(HOSTILE, [HOSTILE, " right"], [[HOSTILE, "[red]\x1b[2Jmarkup"], ["short", "1"]])
    assert_seen(show(made))  # type: ignore[operator]
    nested = Table(HOSTILE)
    nested.add_row(made)
    assert_seen(show(nested))  # type: ignore[operator]


def test_comments_in_c() -> None:
    text = _comment(f"{HOSTILE}*/ int x; /*\\\n")
    assert_seen(text)
    assert "*/" not in text and "\n" not in text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models whose names are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, op in (("fits", "Relu"), ("unknown", f"Bad{IN_PROTOBUF}"), ("unsupported", "NonZero")):
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h" + IN_PROTOBUF], name="first" + IN_PROTOBUF),
            helper.make_node(op, ["h" + IN_PROTOBUF], ["y" + IN_PROTOBUF], name="second" + IN_PROTOBUF),
        ]
        x, y = (
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
            for n, s in (("x", [1, 8]), ("y" + IN_PROTOBUF, None if op == "NonZero" else [1, 4]))
        )
        weight = numpy_helper.from_array(np.eye(8, 4, dtype=np.float32), "w")
        graph = helper.make_graph(nodes, "g" + IN_PROTOBUF, [x], [y], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, folder / f"{name}.onnx")
    (folder / f"{IN_PROTOBUF.replace('/', '')[:40]}.toml").write_text("x = 1")
    samples = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    np.savez(folder / "calib.npz", x=samples)
    named: dict[str, Any] = {IN_PROTOBUF.replace("/", ""): samples}
    np.savez(folder / "misnamed.npz", **named)
    (folder / "keys.toml").write_text(f"[{json.dumps(IN_PROTOBUF)}]\n{json.dumps(IN_PROTOBUF)} = 1\n")
    return folder


COMMANDS = {
    "inspect": "inspect fits.onnx", "unknown operator": "inspect unknown.onnx",
    "inspect as JSON": "inspect fits.onnx --json",
    "unsupported operator": "inspect unsupported.onnx", "refused": "convert unsupported.onnx --target android",
    "keys of a recipe": "convert fits.onnx --target android --recipe keys.toml",
    "keys of a target": "convert fits.onnx --target keys.toml",
    "keys of devices": "devices --config keys.toml",
    "names of data": "convert fits.onnx --target android --calib misnamed.npz",
    "no such file": f"inspect {HOSTILE.replace(chr(0), '').replace(' ', '')}.onnx", "doctor": "doctor",
    "no such option": f"inspect fits.onnx --{HOSTILE.replace(chr(0), '').replace(' ', '')}",
    "traceback": "inspect unknown.onnx --debug",
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    code, out, err = edgecompress(*COMMANDS[name].split(" "))
    assert_seen(out + err)
    assert code in (0, 2, 3), err
    assert out or err
    if "JSON" in name:
        assert IN_PROTOBUF in repr(json.loads(out)) or "first" in out


def test_report(hostile: Path, tmp_path: Path) -> None:
    arguments = (
        "--target",
        "cortex-m4",
        "--calib",
        hostile / "calib.npz",
        "--format",
        "pack",
        "--min-snr",
        "0",
        "-v",
        "-o",
        tmp_path / "o",
    )
    code, out, err = edgecompress("convert", hostile / "fits.onnx", *arguments)
    assert code == 0, err
    for text in (out, err, *edgecompress("report", tmp_path / "o")[1:]):
        assert_seen(text)
    for file in ("report.html", "report.json", "recipe.toml"):
        assert_seen((tmp_path / "o" / file).read_text())
    assert json.loads((tmp_path / "o" / "report.json").read_text())["layers"]
    for name in ("inspect", "bench"):
        code, out, err = edgecompress(name, next((tmp_path / "o").glob("*.pack")))
        assert code == 0, err
        assert_seen(out + err)


def test_devices(tmp_path: Path) -> None:
    """What a device is called, where it is, and why it can't be reached."""
    text = json.dumps(IN_PROTOBUF)
    (tmp_path / "d.toml").write_text(
        f'[{text}]\ndriver = "serial"\nport = {text}\ntarget = "cortex-m4"\ntimeout = 0.1\n'
        f'[here]\ndriver = "local"\npython = {text}\ntarget = "linux-x86_64"\n'
    )
    for form in ((), ("--json",)):
        _, out, err = edgecompress("devices", "--config", tmp_path / "d.toml", *form)
        assert_seen(out + err)
        assert out or err


def _calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_nothing_is_printed_past_it() -> None:
    """Commands print by support/echo.py, and draw by support/console.py: nobody else writes to a terminal."""
    forbidden = {
        "click.echo", "click.secho", "print", "Console", "console.Console", "rich.print", "sys.stdout.write",
        "sys.stderr.write", "traceback.print_exc", "warnings.warn",
    }  # fmt: skip
    allowed = {"support/echo.py", "support/console.py", "ingest/keras_export.py"}
    package = ROOT / "edgecompress"
    found = [
        f"{file.relative_to(package)}:{line}: {called}"
        for file in sorted(package.rglob("*.py"))
        if str(file.relative_to(package)) not in allowed
        for line, called in _calls(ast.parse(file.read_text()))
        if called in forbidden
    ]
    assert not found
