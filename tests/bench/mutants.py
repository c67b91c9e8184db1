"""Mutation testing of arithmetic: small errors put into functions, one at a time, which their tests have to notice.

    python tests/bench/mutants.py [COUNT]

Of all mutants of the functions in SAMPLED, COUNT (default 40) are drawn with seed 0. Each is written into a copy of the
project, the named tests run there, and a mutant that passes them is printed: it is a gap in the tests, or computes the
same. Exits 1 below LEAST killed.
"""

from __future__ import annotations

import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEAST = 0.9
SECONDS = 300  # a mutant that makes a test hang is killed by that
PACK, KERNELS = "runtime/edgecompress_runtime/pack/codecs", "runtime/edgecompress_runtime/kernels"
X86 = "runtime/edgecompress_runtime/families/x86"
EDGES = "tests/runtime/test_arithmetic_edges.py"
# file, functions (all of its, if none are named), tests
SAMPLED: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("edgecompress/compress/prune/schedules.py", (), ("tests/test_prune_weights.py",)),
    ("edgecompress/compress/prune/allocation.py", (), ("tests/test_prune_weights.py",)),
    ("edgecompress/train/optimizer.py", ("learning_rate",), ("tests/test_train.py",)),
    (f"{KERNELS}/fixed_point.py", (), ("tests/runtime/test_kernels_arithmetic.py", EDGES)),
    (f"{PACK}/huffman_code.py", (), ("tests/runtime/test_codecs.py", EDGES)),
    (f"{PACK}/huffman_kernels.py", (), ("tests/runtime/test_codecs.py", EDGES)),
    (f"{PACK}/rans_kernels.py", (), ("tests/runtime/test_codecs.py",)),
    (f"{PACK}/bitpacked.py", (), ("tests/runtime/test_codecs.py",)),
    ("edgecompress/compress/quantize/requantize.py", (), ("tests/test_quantize_aware.py", EDGES)),
    (
        "runtime/edgecompress_runtime/families/x86/x86_requantize.py",
        ("channel_fields",),
        ("tests/runtime/test_requantise.py",),
    ),
)
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    file: str
    tests: tuple[str, ...]
    where: str
    text: str


def mutants(file: str, functions: tuple[str, ...], tests: tuple[str, ...]) -> Iterator[Mutant]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for number, node in enumerate(ast.walk(tree)):
        for changed, what in _changes(tree, number, node, functions):
            line = getattr(node, "lineno", 0)
            yield Mutant(file, tests, f"{file}:{line}: {what}", ast.unparse(ast.fix_missing_locations(changed)))


def _changes(
    tree: ast.Module, number: int, node: ast.AST, functions: tuple[str, ...]
) -> Iterator[tuple[ast.Module, str]]:
    if not _is_inside(tree, node, functions):
        return
    places = [("op", 0), *(("ops", i) for i in range(len(getattr(node, "ops", []))))]
    for name, index in places:
        old = getattr(node, name, None)
        old = old[index] if isinstance(old, list) else old
        if (new := SWAPS.get(type(old))) is None:
            continue
        other, twin = _twin(tree, number)
        if isinstance(getattr(twin, name), list):
            getattr(twin, name)[index] = new()
        else:
            setattr(twin, name, new())
        yield other, f"{type(old).__name__} -> {new.__name__} in {ast.unparse(node)[:60]}"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        other, twin = _twin(tree, number)
        twin.value = node.value + 1
        yield other, f"{node.value} -> {node.value + 1}"


def _twin(tree: ast.Module, number: int) -> tuple[ast.Module, ast.AST]:
    other = copy.deepcopy(tree)
    return other, next(n for i, n in enumerate(ast.walk(other)) if i == number)


def _is_inside(tree: ast.Module, node: ast.AST, functions: tuple[str, ...]) -> bool:
    owners = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and (not functions or f.name in functions)]
    return any(node is inner for f in owners for statement in f.body for inner in ast.walk(statement))


def killed(mutant: Mutant, copy_: Path) -> bool:
    target = copy_ / mutant.file
    whole = target.read_text(encoding="utf-8")
    target.write_text(mutant.text, encoding="utf-8")
    rooms = os.pathsep.join(str(copy_ / room) for room in ("", "runtime", "targets"))
    environment = os.environ | {"PYTHONPATH": rooms, "OMP_NUM_THREADS": "1"}
    # compiled anew each time: a cached function does not notice that one it calls has changed
    environment["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=copy_)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *mutant.tests]
    try:
        code = subprocess.run(command, cwd=copy_, env=environment, capture_output=True, timeout=SECONDS).returncode
        return code == 1 or code < 0  # a test failed, or the mutant crashed the process
    except subprocess.TimeoutExpired:
        return True
    finally:
        target.write_text(whole, encoding="utf-8")


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    known = [m for sampled in SAMPLED for m in mutants(*sampled)]
    drawn = random.Random(0).sample(known, min(count, len(known)))
    alive = 0
    with tempfile.TemporaryDirectory() as work:
        copy_ = Path(work) / "copy"
        shutil.copytree(ROOT, copy_, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "build"))
        for mutant in drawn:
            if not killed(mutant, copy_):
                alive += 1
                print(f"survived: {mutant.where}", flush=True)
    share = 1 - alive / len(drawn)
    print(f"{len(drawn)} of {len(known)} mutants: {len(drawn) - alive} killed, {100 * share:.0f} %")
    return 0 if share >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
