"""How much of ONNX is read, and computed rightly, by the tests that come with the `onnx` package.

    python tests/bench/conformance.py [--group GROUP]... [--operator NAME]... [--case TEXT] [--share N] [--list]
    python tests/bench/conformance.py --write docs/OPERATORS.md

Every test is read as `convert` reads a model, written as float .onnx and .tflite, and run in ONNX Runtime and LiteRT.
Both are compared with what the test expects, or with what ONNX Runtime computes of the test's own model, where that is
something else. It ends as one of

    pass       both formats compute what is expected
    onnx       .onnx does; .tflite is refused, with a reason
    refused    with a reason, before any file is written
    unclear    with an error that is a fault of ours ("please report", "failed with")
    wrong      a file computes something else, or its interpreter does not take it
    crash      an exception that is no EdgeCompressError, or the process died
    hang       no answer in --limit seconds

The tests run in a process of their own, which is started again when it dies. Exit code 1 if any test is unclear, wrong,
a crash or a hang.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance_cases import GROUPS, Case, collect, difference, run
from edgecompress.emit import onnx as onnx_emitter
from edgecompress.emit import tflite
from edgecompress.errors import EdgeCompressError
from edgecompress.ingest import load
from edgecompress.targets import load_target
from edgecompress_targets import OPERATOR_SETS

OUTCOMES = ("pass", "onnx", "refused", "unclear", "wrong", "crash", "hang")
FAULTS = ("unclear", "wrong", "crash", "hang")
LIMIT, START = 60.0, 60.0  # seconds for a test, and for the start of the process
DISGUISED = re.compile(r"failed with|please report")


@dataclass(frozen=True)
class Outcome:
    """kind: one of OUTCOMES. reason: in words; "" for a test that passed."""

    kind: str
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """A test, and how it ended."""

    name: str
    group: str
    operator: str
    outcome: Outcome


# --- one test ---


def judge(case: Case) -> Outcome:
    """Reads the test's model, writes both files and runs them."""
    try:
        model = load(onnx.ModelProto.FromString(case.model.SerializeToString())).model
    except EdgeCompressError as error:
        return _refused(error)
    operators = OPERATOR_SETS[load_target("android", None).operators]
    formats: dict[str, Callable[[], Sequence[np.ndarray]]] = {
        "onnx": lambda: run(onnx_emitter.emit(model), case.feeds),
        "tflite": lambda: _in_litert(tflite.emit(model, operators=operators), case.feeds),
    }
    found = {name: _compared(case, compute) for name, compute in formats.items()}
    for kind in (*reversed(FAULTS), "refused"):
        reasons = [f".{name}: {outcome.reason}" for name, outcome in found.items() if outcome.kind == kind]
        if reasons and kind == "refused" and found["onnx"].kind == "pass":
            return Outcome("onnx", reasons[0])
        if reasons:
            return Outcome(kind, "; ".join(reasons))
    return Outcome("pass")


def _refused(error: EdgeCompressError) -> Outcome:
    return Outcome("unclear" if DISGUISED.search(str(error)) else "refused", str(error))


def _compared(case: Case, compute: Callable[[], Sequence[np.ndarray]]) -> Outcome:
    try:
        found = compute()
    except EdgeCompressError as error:
        return _refused(error)
    except Exception as error:  # of the interpreter, about a file that should not have been written
        return Outcome("wrong", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    fault = _difference(case.expected, found)
    if fault and (computed := _as_it_came(case)) is not None and not _difference(computed, found):
        return Outcome("pass")
    return Outcome("wrong", fault) if fault else Outcome("pass")


def _difference(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> str:
    faults = [difference(a, b) for a, b in zip(expected, found, strict=True)]
    return next((f"output {i}: {fault}" for i, fault in enumerate(faults) if fault), "")


def _as_it_came(case: Case) -> list[np.ndarray] | None:
    """What ONNX Runtime computes of the test's own model; None where it can't."""
    try:
        return run(case.model.SerializeToString(), case.feeds)
    except Exception:
        return None


def _in_litert(written: tflite.TFLiteModel, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=written.data, num_threads=1)
    interpreter.allocate_tensors()
    for details, tensor in zip(interpreter.get_input_details(), written.inputs, strict=True):
        interpreter.set_tensor(details["index"], tensor.to_device(feeds[tensor.name]))
    interpreter.invoke()
    outputs = [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]
    return [tensor.from_device(y) for y, tensor in zip(outputs, written.outputs, strict=True)]


# --- a process for the tests, which may hang or die ---


def judged(cases: Iterable[Case], limit: float = LIMIT) -> Iterator[Row]:
    """Each case with its outcome, in order."""
    worker = _Worker()
    try:
        for case in cases:
            yield Row(case.name, case.group, case.operator, worker(case, limit))
    finally:
        worker.stop()


class _Worker:
    """Runs `judge` in another process."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._grace = START

    def __call__(self, case: Case, limit: float) -> Outcome:
        self._pipe.send(case)
        try:
            if self._pipe.poll(limit + self._grace):
                self._grace = 0.0
                return self._pipe.recv()
            outcome = Outcome("hang", f"no answer in {limit:g} s")
        except EOFError:
            self._process.join()
            outcome = Outcome("crash", f"the process died with exit code {self._process.exitcode}")
        self.stop()
        self._start()
        return outcome

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C++ libraries print
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        try:
            outcome = judge(case)
        except Exception as error:
            outcome = Outcome("crash", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        pipe.send(outcome)


# --- tables ---


def by_group(rows: Sequence[Row]) -> str:
    """A table with a row for each group, as Markdown."""
    counts = {group: Counter(r.outcome.kind for r in rows if r.group == group) for group in GROUPS}
    counts = {group: count for group, count in counts.items() if count}
    lines = [f"| group | tests | {' | '.join(OUTCOMES)} |", "|---|" + "--:|" * (len(OUTCOMES) + 1)]
    for group, count in [*counts.items(), ("all", Counter(r.outcome.kind for r in rows))]:
        cells = " | ".join(str(count[kind] or "") for kind in OUTCOMES)
        lines.append(f"| {GROUPS.get(group, group)} | {count.total()} | {cells} |")
    return "\n".join(lines)


def by_operator(rows: Sequence[Row]) -> str:
    """A table with a row for each operator, of the tests of single operators, as Markdown."""
    lines = ["| operator | tests | both | only .onnx | refused, or wrong |", "|---|--:|--:|--:|---|"]
    alone = [row for row in rows if row.group not in ("function", "model")]
    for operator in sorted({row.operator for row in alone}):
        own = [row.outcome for row in alone if row.operator == operator]
        count = Counter(outcome.kind for outcome in own)
        left = [f"{kind} {count[kind]}" for kind in OUTCOMES[2:] if count[kind]]
        both, some = (str(count[kind] or "") for kind in ("pass", "onnx"))
        lines.append(f"| {operator} | {len(own)} | {both} | {some} | {', '.join(left)} |")
    return "\n".join(lines)


DOCUMENT = """# Operators

What the tests that come with the `onnx` package ({version}) find of each operator: how many of them both formats, .onnx
and .tflite, compute as they should; how many .onnx alone, because .tflite refuses them with a reason; and how many are
refused. Their weights, shapes and other parameters are constants, as exporters write them. Written by

    python tests/bench/conformance.py --write docs/OPERATORS.md

which says what the words mean. {apart} other tests are of what is no float model of tensors:
{reasons}.

{groups}

## One by one

{operators}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--group", action="append", choices=[*GROUPS])
    parser.add_argument("--operator", action="append", help="by its name; may be repeated")
    parser.add_argument("--case", default="", help="tests whose name has this in it")
    parser.add_argument("--share", type=int, default=1, help="every N-th test")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for a test")
    parser.add_argument("--list", action="store_true", help="a line for each test that does not pass")
    parser.add_argument("--write", type=Path, help="file for the table of all operators")
    args = parser.parse_args()
    found = collect(args.share)
    wanted = [
        case
        for case in found.cases
        if (not args.group or case.group in args.group)
        and (not args.operator or case.operator in args.operator)
        and args.case in case.name
    ]
    rows = []
    for row in judged(wanted, args.limit):
        rows.append(row)
        if row.outcome.kind in FAULTS or (args.list and row.outcome.kind != "pass"):
            print(f"{row.outcome.kind:8} {row.group:8} {row.operator:20} {row.name}: {row.outcome.reason}", flush=True)
    print(by_group(rows))
    if args.write:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(found.apart.items()))
        text = DOCUMENT.format(
            version=onnx.__version__,
            apart=sum(found.apart.values()),
            reasons=reasons,
            groups=by_group(rows),
            operators=by_operator(rows),
        )
        args.write.write_text(text, encoding="utf-8")
    return 1 if any(row.outcome.kind in FAULTS for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
