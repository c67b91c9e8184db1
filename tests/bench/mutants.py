"""Mutation testing: small errors are put into functions, one at a time, and their tests have to notice each.

    python tests/bench/mutants.py [COUNT] [--seed N] [--room NAME]

COUNT mutants (36 by default) are drawn with the seed (0 by default), as many from each room of ROOMS. Each is written
into a copy of the project, where the tests of its file run. One that they pass survives: either the tests have a gap,
or it computes the same. Tests that fail without any mutant end the run, since they would notice everything. The exit
code is 1 when fewer than LEAST of the mutants were noticed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEAST = 34 / 36
SECONDS = 300  # a mutant that makes a test hang is noticed by that
# What the tests import that is slow to import and none of ours; Numba reads its settings when it is imported.
LIBRARIES = ("hypothesis", "onnx.reference", "onnx_ir", "onnxruntime", "onnxscript.optimizer", "torch")


@dataclass(frozen=True)
class Source:
    """A file to put errors into, and the tests that have to notice them.

    file: below the project's root. tests: arguments of pytest. functions: those that errors go into; all of them
    when none is named.
    """

    file: str
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()


def _sources(folder: str, tests: str, files: str) -> tuple[Source, ...]:
    """One Source for each of the files (names without .py) in the folder; tests are below tests/."""
    arguments = tuple(f"tests/{test}" for test in tests.split())
    return tuple(Source(f"{folder}/{name}.py", arguments) for name in files.split())


_E, _R, _Q = "edgecompress", "runtime/edgecompress_runtime", "edgecompress/compress/quantize"
_EDGES = "runtime/test_arithmetic_edges.py"
ROOMS: dict[str, tuple[Source, ...]] = {
    "ingest": (
        *_sources(
            f"{_E}/ingest/passes",
            "test_ingest_passes.py",
            "affine batchnorm canonical_convolution canonical_pooling clip edit gemm input_shapes operator_parameters "
            "opset pad recognise_activations recognise_layernorm reshape rewrite_operators",
        ),
        *_sources(f"{_E}/ingest", "test_ingest_passes.py test_ingest.py", "equality loader"),
        *_sources(f"{_E}/ingest", "test_bad_models.py", "external_data onnx_file"),
        *_sources(f"{_E}/ingest", "test_ingest_quantized.py", "quantized"),
    ),
    "emit": (
        *_sources(
            f"{_E}/operators",
            "test_intervals.py test_channel_groups.py test_emit_tflite.py test_operators.py",
            "convolution elementwise images indexing matrix movement normalisation pooling reduction resizing",
        ),
        *_sources(f"{_E}/operators", "test_torch_bridge.py test_emit_tflite.py test_operators.py", "recurrent"),
        *_sources(f"{_E}/operators", "test_emit_tflite.py", "rewriting"),
        *_sources(f"{_E}/emit/tflite", "test_emit_tflite.py", "__init__ look_ups"),
        *_sources(
            f"{_E}/lowering",
            "test_emit_tflite.py",
            "context flatbuffer forms operands parts tensor_io versions weight_tensors windows",
        ),
        *_sources(f"{_E}/emit/onnx", "test_emit_onnx.py", "activations additions constants"),
    ),
    "graph": (
        *_sources(f"{_E}/analysis", "test_statistics.py", "statistics"),
        *_sources(f"{_E}/graph", "test_emit_tflite.py test_statistics.py", "fusion"),
        *_sources(f"{_E}/graph", "test_intervals.py", "intervals"),
        *_sources(f"{_E}/analysis", "test_intervals.py test_prune_dead.py", "value_bounds"),
        *_sources(f"{_E}/analysis", "test_channel_groups.py", "channel_groups"),
        *_sources(f"{_E}/graph", "test_channel_groups.py", "channel_axes channel_reshape channel_rules"),
    ),
    "quantize": (
        *_sources(_Q, "test_calibration.py", "histogram ranges"),
        *_sources(_Q, "test_quantize.py test_quantize_weights.py", "groups precision weight_scales"),
        *_sources(_Q, "test_quantize.py test_calibration.py", "assign"),
        *_sources(_Q, "test_quantize_correction.py", "bias_correction cross_layer equalize noise"),
        *_sources(_Q, "test_quantize_simulation.py", "simulate"),
        *_sources(_Q, "test_quantize_diagnosis.py", "diagnose"),
        *_sources(_Q, f"test_quantize_aware.py {_EDGES}", "fake requantize"),
    ),
    "runtime": (
        *_sources(f"{_R}/kernels", f"runtime/test_kernels_arithmetic.py {_EDGES}", "fixed_point"),
        *_sources(f"{_R}/pack/entropy", f"runtime/test_codecs.py {_EDGES}", "huffman_code huffman_kernels"),
        *_sources(f"{_R}/pack/entropy", "runtime/test_codecs.py", "rans_kernels"),
        *_sources(f"{_R}/pack/codecs", "runtime/test_codecs.py", "bitpacked golomb"),
        *_sources(f"{_R}/pack", "runtime/test_pack.py runtime/test_pack_format.py", "container fields header"),
        *_sources(_R, "runtime/test_shapes.py", "shapes"),
        *_sources(f"{_R}/codegen", "runtime/test_memory.py", "memory"),
        Source(
            f"{_R}/families/x86/x86_requantize.py", ("tests/runtime/test_requantize.py",), functions=("channel_fields",)
        ),
    ),
    "learning": (
        *_sources(f"{_E}/compress/prune", "test_prune_weights.py", "allocation schedules"),
        Source(f"{_E}/train/optimizer.py", ("tests/test_train.py",), functions=("learning_rate",)),
    ),
}
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One error in a source: what it changes in the node that `ast.walk` gives as the `number`th."""

    source: Source
    number: int
    where: str
    change: Callable[[ast.AST], None]

    def text(self) -> str:
        """The whole file with the error in it."""
        tree = ast.parse((ROOT / self.source.file).read_text(encoding="utf-8"))
        self.change(next(node for i, node in enumerate(ast.walk(tree)) if i == self.number))
        return ast.unparse(ast.fix_missing_locations(tree))


def mutants(source: Source) -> Iterator[Mutant]:
    """Every mutant of the source's functions, in the order of the file's syntax tree."""
    tree = ast.parse((ROOT / source.file).read_text(encoding="utf-8"))
    inside = _inside(tree, source.functions)
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in inside:
            for what, change in _changes(node):
                yield Mutant(source, number, f"{source.file}:{getattr(node, 'lineno', 0)}: {what}", change)


def _inside(tree: ast.Module, functions: tuple[str, ...]) -> set[int]:
    """Identities of the nodes in the bodies of these functions, without annotations, which nothing evaluates."""
    found = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and (not functions or function.name in functions)
        for statement in function.body
        for inner in ast.walk(statement)
    }
    annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, (ast.AnnAssign, ast.arg))]
    unused = {id(inner) for annotation in annotations if annotation is not None for inner in ast.walk(annotation)}
    returns = [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return found - unused - {id(inner) for node in returns if node is not None for inner in ast.walk(node)}


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    """What a mutant changes in the node, in words and as a function of the same node in another copy of the tree."""
    operators = [getattr(node, "op", None), *getattr(node, "ops", ())]
    for index, old in enumerate(operators):
        if (new := SWAPS.get(type(old))) is not None:
            what = f"{type(old).__name__} -> {new.__name__} in {ast.unparse(node)[:60]}"
            yield what, lambda twin, index=index, new=new: _set_operator(twin, index - 1, new())
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        more = node.value + 1
        yield f"{node.value} -> {more}", lambda twin: setattr(twin, "value", more)


def _set_operator(node: ast.AST, index: int, new: ast.AST) -> None:
    """index: of a comparison's operators; -1 is the one operator of any other node."""
    if index < 0:
        node.op = new
    else:
        node.ops[index] = new


def drawn(count: int, seed: int, rooms: list[str]) -> list[Mutant]:
    """count mutants, equally many from every room; the first rooms give one more where that does not come out even."""
    generator, found = random.Random(seed), []
    for i, room in enumerate(rooms):
        known = [mutant for source in ROOMS[room] for mutant in mutants(source)]
        wanted = count // len(rooms) + (i < count % len(rooms))
        found += generator.sample(known, min(wanted, len(known)))
    return found


class Copy:
    """A copy of the project that mutants are written into."""

    def __init__(self, folder: Path) -> None:
        self.root, self._cache, self._passed = folder / "copy", folder / "numba", set[tuple[str, ...]]()
        self._rooms = [self.root / room for room in ("", "runtime", "targets", "tests")]
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "build"))

    def notices(self, mutant: Mutant) -> bool:
        """Whether the tests of the mutant's file fail, crash or hang with it. SystemExit when they fail without it."""
        source, target = mutant.source, self.root / mutant.source.file
        if source.tests not in self._passed:
            if self._fails(source, 10 * SECONDS):
                sys.exit(f"{' '.join(source.tests)}: fails without any mutant")
            self._passed.add(source.tests)
        whole = target.read_text(encoding="utf-8")
        target.write_text(mutant.text(), encoding="utf-8")
        try:
            return self._fails(source, SECONDS)
        finally:
            target.write_text(whole, encoding="utf-8")

    def _fails(self, source: Source, seconds: int) -> bool:
        """Runs the tests in a fork, which has the large libraries at once."""
        # Numba compiles the runtime anew each time: a cached function does not notice that one it calls has changed.
        cache = tempfile.mkdtemp(dir=self.root) if source.file.startswith("runtime/") else str(self._cache)
        if not (process := os.fork()):
            signal.alarm(seconds)
            os.environ.update(OMP_NUM_THREADS="1", NUMBA_CACHE_DIR=cache)
            os.environ["PYTHONPATH"] = os.pathsep.join(map(str, self._rooms))
            os.chdir(self.root)
            sys.path[:0] = map(str, self._rooms)
            sys.dont_write_bytecode = True
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            os._exit(int(pytest.main(["-q", "-x", "-n", "0", "-p", "no:cacheprovider", *source.tests])))
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        # 1: a test failed. 2: the mutant kept a test file from being imported. Negative: it crashed, or took too long.
        return code in (1, 2) or code < 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", action="append", choices=list(ROOMS), help="draw from this room alone; repeatable")
    arguments = parser.parse_args()
    chosen, survivors = drawn(arguments.count, arguments.seed, arguments.room or list(ROOMS)), 0
    for name in LIBRARIES:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        project = Copy(Path(folder))
        for mutant in chosen:
            start = time.perf_counter()
            noticed = project.notices(mutant)
            survivors += not noticed
            seconds = time.perf_counter() - start
            print(f"{'noticed' if noticed else 'SURVIVED'} in {seconds:.0f} s: {mutant.where}", flush=True)
    share = 1 - survivors / len(chosen)
    print(f"seed {arguments.seed}: {len(chosen) - survivors} of {len(chosen)} mutants noticed")
    return 0 if share >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
