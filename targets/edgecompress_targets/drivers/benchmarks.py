"""Benchmark programs of others that a device may have: how they are called, and how their output is read.

They make their own inputs, so that they give times alone. LiteRT's `benchmark_model` prints a line of statistics; ONNX
Runtime's `onnxruntime_perf_test` writes a line for each inference to a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgecompress_targets.connection.driver import Benchmark, DeviceError, Summary
from edgecompress_targets.connection.times import MOST_NANOSECONDS

WARMUP = 3  # inferences that benchmark_model runs first; onnxruntime_perf_test runs one
MOST_RUNS = 10**9
LONGEST = 150.0  # seconds of benchmark_model, which stops early otherwise
STATISTICS = re.compile(r"count=(\d+)[ \t]+(.*)")
PAIR = re.compile(r"(\w+)=([-+.\deE]+)")
MODEL, RESULT = "model", "result.csv"


def benchmark_model(text: str) -> Summary:
    """The last `count=50 first=.. curr=.. min=.. max=.. avg=.. std=..`, microseconds (tensorflow's
    core/util/stats_calculator.h); the one before it belongs to the warm-up."""
    found = STATISTICS.findall(text)
    if not found:
        raise ValueError("no line of statistics (count=.. min=.. max=.. avg=..)")
    count, rest = found[-1]
    values = {key: nanoseconds(1e3 * float(value)) for key, value in PAIR.findall(rest)}
    if len(count) > len(str(MOST_RUNS)):
        raise ValueError("its count of inferences can't be")
    if "all same" in rest:
        values |= dict.fromkeys(("min", "max", "avg"), values.get("curr", 0.0)) | {"std": 0.0}
    try:
        return Summary(int(count), values["min"], values["max"], values["avg"], values["std"], values.get("median"))
    except KeyError as error:
        raise ValueError(f"its statistics have no {error}") from error


def perf_test(text: str) -> tuple[int, ...]:
    """Nanoseconds from each line `model name,seconds,..`."""
    lines = [line for line in text.splitlines() if line.strip()]
    return tuple(round(nanoseconds(1e9 * float(line.split(",")[1]))) for line in lines)


def nanoseconds(value: float) -> float:
    """The value, if an inference can have taken so long; raises ValueError otherwise, also for NaN."""
    if not 0 <= value <= MOST_NANOSECONDS:
        raise ValueError(f"a time of {value:g} ns can't be")
    return value


@dataclass(frozen=True)
class _Kind:
    words: Callable[[str, int], tuple[str, ...]]
    parse: Callable[[str], Summary | tuple[int, ...]]
    result: str | None
    warmup: int


KINDS: dict[str, _Kind] = {
    "tflite": _Kind(
        lambda program, threads: (
            program, f"--graph={MODEL}.tflite", f"--num_threads={threads}", f"--warmup_runs={WARMUP}",
            "--warmup_min_secs=0", "--num_runs={runs}", "--min_secs=0", f"--max_secs={LONGEST}",
        ),
        benchmark_model, None, WARMUP,
    ),
    "onnx": _Kind(
        lambda program, threads: (
            program, "-I", "-m", "times", "-r", "{runs}", "-x", str(threads), f"{MODEL}.onnx", RESULT,
        ),
        perf_test, RESULT, 1,
    ),
}  # fmt: skip


def benchmark(format: str, program: str, threads: int) -> Benchmark:
    """The benchmark of a file MODEL.format in the same folder. program: the path of the benchmark on the device."""
    kind = KINDS[format]

    def parse(text: str) -> Summary | tuple[int, ...]:
        try:
            found = kind.parse(text)
        except (ValueError, IndexError) as error:
            raise DeviceError(f"{program}: its output is not as expected: {error}") from error
        if not found:
            raise DeviceError(f"{program}: it measured nothing")
        return found

    return Benchmark(kind.words(program, threads), parse, kind.result, kind.warmup, program.rpartition("/")[2])
