"""The three rooms: who may import whom, what is installed, and what `--help` costs."""

from __future__ import annotations

import ast
import configparser
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "edgecompress_runtime": ROOT / "runtime" / "edgecompress_runtime",
    "edgecompress_targets": ROOT / "targets" / "edgecompress_targets",
    "edgecompress": ROOT / "edgecompress",
}
MAY_IMPORT = {
    "edgecompress_runtime": set(),
    "edgecompress_targets": {"edgecompress_runtime"},
    "edgecompress": {"edgecompress_runtime", "edgecompress_targets"},
}
HEAVY = {
    "torch", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "ai_edge_litert", "numba", "numpy", "pydantic",
    "rich",
}  # fmt: skip
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOMS[name].parent) for name in ROOMS)}


def imported_packages(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_upward(room: str) -> None:
    files = list(ROOMS[room].rglob("*.py"))
    assert files
    for file in files:
        upward = (imported_packages(file) & set(ROOMS)) - MAY_IMPORT[room] - {room}
        assert not upward, f"{file} imports {upward}"


def test_the_runtime_needs_numpy_and_numba_only() -> None:
    allowed = {"numpy", "numba", "llvmlite", "edgecompress_runtime"} | set(sys.stdlib_module_names)
    for file in ROOMS["edgecompress_runtime"].rglob("*.py"):
        assert imported_packages(file) <= allowed, file


def test_torch_is_imported_only_by_what_trains() -> None:
    """What reads a model, converts or reports works without torch: it imports no module that needs it when loaded."""
    imports = {}
    for file in ROOMS["edgecompress"].rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        imports[module] = found = set()
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found.update(a.name for a in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.update({node.module, *(f"{node.module}.{a.name}" for a in node.names)})
    needs_torch: set[str] = set()
    while (
        more := {
            m for m, names in imports.items() if any(n.split(".")[0] == "torch" or n in needs_torch for n in names)
        }
        - needs_torch
    ):
        needs_torch |= more
    assert needs_torch
    may = (
        "edgecompress.operators.batchnorm_module",
        "edgecompress.train",
        "edgecompress.compress.",
        "edgecompress.own_loop",
    )
    assert not needs_torch - {m for m in imports if m.startswith(may)}
    assert not needs_torch & {"edgecompress.compress.quantize.post_training", "edgecompress.compress.cluster"}


def setup_cfg() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def test_every_folder_with_modules_is_installed() -> None:
    on_disk = {
        ".".join((room, *file.parent.relative_to(folder).parts))
        for room, folder in ROOMS.items()
        for file in folder.rglob("*.py")
    }
    listed = setup_cfg()["options"]["packages"].split()
    assert sorted(listed) == sorted(on_disk)


def test_core_dependencies_have_lower_bounds_and_no_torch() -> None:
    setup = setup_cfg()
    core = setup["options"]["install_requires"].split()
    assert sorted(line.split(">=")[0] for line in core) == [
        "ai-edge-litert",
        "click",
        "jinja2",
        "numba",
        "numpy",
        "onnx",
        "onnx-ir",
        "onnxruntime",
        "onnxscript",
        "pydantic",
        "pyserial",
        "rich",
    ]
    assert all(">=" in line and "<" not in line for line in core)
    extras = setup["options.extras_require"]
    assert {"torch", "test", "tflite-runtime", "images", "devices"} <= set(extras)
    assert "numpy<2" in extras["tflite-runtime"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from edgecompress.cli import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert not stop.code
print("LOADED", *sorted({HEAVY!r} & set(sys.modules)))
"""
    assert run("-c", code).stdout.splitlines()[-1] == "LOADED"


def test_help_takes_less_than_400_ms_of_a_processor() -> None:
    """Not of a clock's: other tests may run at the same time."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(3):
        before = used()
        run("-m", "edgecompress", "--help")
        seconds.append(used() - before)
    assert min(seconds) < 0.4


def test_python_names_are_imported_when_used() -> None:
    run("-c", "import sys, edgecompress; assert 'pydantic' not in sys.modules")
    run("-c", "import sys, edgecompress; edgecompress.Recipe; assert 'onnxruntime' not in sys.modules")
    run("-c", "import edgecompress; assert set(edgecompress.__all__) <= set(dir(edgecompress))")
