"""How the packages are laid out: imports go one way, functions stay small, and a module's name is found once.

Every import counts, also one inside a function or under TYPE_CHECKING. A failing test names the line at fault.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "edgecompress_runtime": ROOT / "runtime" / "edgecompress_runtime",
    "edgecompress_targets": ROOT / "targets" / "edgecompress_targets",
    "edgecompress": ROOT / "edgecompress",
}
# Each package's rooms, lowest first: a room imports those before it. What stands in one line may not import each other.
ROOMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "edgecompress_runtime": (
        ("errors",), ("storage",), ("options",), ("plan",), ("types_of_operands",), ("shapes",), ("jit",),
        ("kernels",), ("operators",), ("pack",), ("llvm",), ("execute",),
        ("families.shared",), ("families.cortex_m", "families.aarch64", "families.riscv", "families.x86"),
        ("families.table",), ("codegen",), ("building",), ("loading",),
    ),
    "edgecompress_targets": (
        ("operators",), ("profile",), ("catalogue",), ("tools", "work_folder"), ("connection",), ("user_emulation",),
        ("aarch64", "cortex_m", "linux", "riscv"), ("platforms",), ("drivers",),
    ),
    "edgecompress": (
        ("visible",), ("errors",), ("support",), ("targets",), ("recipe",), ("record",), ("graph",), ("lowering",),
        ("operators",), ("analysis",), ("ingest",), ("emit",), ("evaluate",), ("train",), ("compress",),
        ("conversion",), ("report",), ("inspection",), ("devices",), ("api", "own_loop"), ("cli",), ("__main__",),
    ),
}  # fmt: skip
MOST_ROOT_MODULES, MOST_PARAMETERS, MOST_STATEMENTS = 10, 7, 40

# Parallel folders hold the same modules on purpose: commands are named as the rooms that they call, criteria as recipes
# name them, families of operators as those of kernels; each family of devices has a platform, an emulator and a linker.
PARALLEL = (
    "edgecompress.cli.",
    "edgecompress.compress.prune.criteria.",
    "edgecompress.operators.",
    "edgecompress_targets.",
    "edgecompress_runtime.families.",
    "edgecompress_runtime.kernels.",
)
# The same word where a folder says which one is meant.
SAME_NAME = {"errors", "operators"}
# The public functions, whose parameters are what a user may say.
PUBLIC = {
    "edgecompress.api.convert", "edgecompress.devices.bench.bench", "edgecompress.ingest.loader.load",
    "edgecompress.inspection.layer_sensitivity.sensitivity", "edgecompress.own_loop.prepare",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import of a module of these packages by another."""

    importer: str
    line: int
    imported: str

    def __str__(self) -> str:
        return f"{_file(self.importer).relative_to(ROOT)}:{self.line}: imports {self.imported}"


@cache
def _modules() -> dict[str, tuple[Path, ast.Module]]:
    """Dotted name of each module -> its file and its syntax tree."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = file, ast.parse(file.read_text(encoding="utf-8"))
    return found


def _file(module: str) -> Path:
    return _modules()[module][0]


@cache
def _reexported(package: str) -> dict[str, str]:
    """Name that a package's __init__ passes on -> the module that it comes from."""
    found = {}
    for node in ast.walk(_modules()[package][1]):
        if isinstance(node, ast.ImportFrom) and node.module in _modules():
            found.update({alias.asname or alias.name: node.module for alias in node.names})
    return found


@cache
def _imports() -> tuple[Import, ...]:
    """Every import, of the module that defines what is imported. The packages' own __init__ only pass names on."""
    found = []
    for module, (file, tree) in _modules().items():
        if file.name == "__init__.py" and file.parent in PACKAGES.values():
            continue
        for node in ast.walk(tree):
            found += [Import(module, node.lineno, name) for name in _imported(node) if name != module]
    return tuple(found)


def _imported(node: ast.AST) -> Iterator[str]:
    modules = _modules()
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    if isinstance(node, ast.ImportFrom) and node.module in modules:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner in modules:
                yield inner
            elif _file(node.module).parent not in PACKAGES.values() or alias.name in _reexported(node.module):
                yield _reexported(node.module).get(alias.name, node.module)


def _place(module: str) -> tuple[int, int, str]:
    """(rank of the package, rank of the room, the room) of a module."""
    package = module.split(".")[0]
    inner = module.removeprefix(package).lstrip(".") + "."
    for rank, rooms in enumerate(ROOMS[package]):
        for room in rooms:
            if inner.startswith(f"{room}."):
                return list(PACKAGES).index(package), rank, room
    return list(PACKAGES).index(package), -1, ""


def test_every_module_has_a_room() -> None:
    roots = {*PACKAGES, "edgecompress_runtime.families"}
    faults = [
        f"{_file(m).relative_to(ROOT)}: in no room of ROOMS" for m in _modules() if not _place(m)[2] and m not in roots
    ]
    assert not faults, "\n".join(faults)


def _climbing_imports() -> list[str]:
    faults = []
    for one in _imports():
        above, below = _place(one.importer), _place(one.imported)
        same_room = above[0] == below[0] and above[2] == below[2]
        if above[2] and below[2] and not same_room and below[:2] >= above[:2]:
            faults.append(f"{one}, of {below[2]}, which is not below {above[2]}")
    return faults


def _circles_of_files() -> list[str]:
    arrows: dict[str, set[str]] = defaultdict(set)
    for one in _imports():
        arrows[one.importer].add(one.imported)
    reached = {module: _reached(arrows, module) for module in list(arrows)}
    return [
        f"{one}, which imports it again"
        for one in _imports()
        if one.importer in reached.get(one.imported, ())  # both are in one circle
    ]


def _reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    """All modules that this one imports, and that those import."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def _large_functions() -> list[str]:
    faults = []
    for module, (file, tree) in _modules().items():
        for function in ast.walk(tree):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if f"{module}.{function.name}" in PUBLIC or _is_command(function):
                continue
            place = f"{file.relative_to(ROOT)}:{function.lineno}: {function.name}"
            parameters, statements = _parameters(function), _statements(function)
            if parameters > MOST_PARAMETERS:
                faults.append(f"{place} has {parameters} parameters, more than {MOST_PARAMETERS}")
            if statements > MOST_STATEMENTS:
                faults.append(f"{place} has {statements} statements, more than {MOST_STATEMENTS}")
    return faults


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(d).startswith(("click.command", "click.group")) for d in function.decorator_list)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len(named) - bool(named and named[0].arg in ("self", "cls"))


def _statements(function: ast.AST) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1


def _modules_of_one_name() -> list[str]:
    places = defaultdict(list)
    for module, (file, _) in _modules().items():
        if file.name not in ("__init__.py", "__main__.py") and not module.startswith(PARALLEL):
            places[file.stem].append(str(file.relative_to(ROOT)))
    twice = [files for name, files in places.items() if len(files) > 1 and name not in SAME_NAME]
    return [f"{', '.join(sorted(files))}: modules of one name" for files in twice]


RULES = (_climbing_imports, _circles_of_files, _large_functions, _modules_of_one_name)


@pytest.mark.parametrize("faults", RULES, ids=lambda rule: rule.__name__.strip("_"))
def test_the_house_has_none_of(faults: Callable[[], list[str]]) -> None:
    found = faults()
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_few_modules_on_its_root(package: str) -> None:
    names = sorted(file.name for file in PACKAGES[package].glob("*.py"))
    assert len(names) <= MOST_ROOT_MODULES, f"{package} has {len(names)} modules on its root: {', '.join(names)}"
