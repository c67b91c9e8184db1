"""Measuring artifacts in the interpreters themselves, without any code of edgecompress in between."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP, ROUNDS, CALLS = 5, 101, 20
Runner = Callable[[np.ndarray], np.ndarray]  # one sample [...] -> float output [...]


@dataclass(frozen=True)
class CommandCost:
    """seconds: wall time. megabytes: peak resident memory of the process."""

    seconds: float
    megabytes: float


def convert(*arguments: str | Path) -> CommandCost:
    """Runs `edgecompress convert ARGUMENTS` in its own process; raises RuntimeError if it fails."""
    command = [sys.executable, "-m", "edgecompress", "convert", *map(str, arguments)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # this child's own peak, not the largest of all children
    seconds = time.perf_counter() - start
    if code := os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{shlex.join(command)}: exit code {code}\n{output}")
    return CommandCost(seconds, usage.ru_maxrss / 1024)


def onnx_runner(path: Path) -> Runner:
    """ONNX Runtime, one thread, all graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(sample: np.ndarray) -> np.ndarray:
        return session.run(None, {name: sample[None].astype(np.float32)})[0][0]

    return run


def tflite_runner(path: Path, package: str = "ai_edge_litert.interpreter") -> Runner:
    """LiteRT (or `package`), one thread, default (XNNPACK) kernels; int8 inputs and outputs are converted."""
    module = __import__(package, fromlist=["Interpreter"])
    interpreter = module.Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(sample: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], _stored(sample, source))
        interpreter.invoke()
        output = interpreter.get_tensor(target["index"])[0]
        scale, zero_point = target["quantization"]
        return (output.astype(np.float32) - zero_point) * np.float32(scale) if scale else output

    return run


def tflite_invoker(path: Path, sample: np.ndarray) -> Callable[[], None]:
    """Only `invoke()`, on one sample that is set beforehand: what a latency figure should hold."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    interpreter.set_tensor(source["index"], _stored(sample, source))
    return interpreter.invoke


def tflite_caller(path: Path, sample: np.ndarray) -> Callable[[], np.ndarray]:
    """The input set, `invoke()`, the output read: what a call of a model in our runtime does."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    index, stored = source["index"], _stored(sample, source)

    def call() -> np.ndarray:
        interpreter.set_tensor(index, stored)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return call


def tflite_operators(path: Path) -> set[str]:
    """Names of the operators in a TFLite file, as in the schema."""
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return {names[codes[op.opcodeIndex]] for graph in model.subgraphs for op in graph.operators}


def top1(run: Runner, samples: np.ndarray, labels: np.ndarray) -> float:
    """Percent of samples whose largest output is the label's."""
    return 100 * float(np.mean([run(x).argmax() == y for x, y in zip(samples, labels, strict=True)]))


def snr(run: Runner, samples: np.ndarray, expected: np.ndarray) -> float:
    """Signal-to-noise of the outputs against `expected` [n, ...], in dB."""
    noise = np.stack([run(x) for x in samples]).reshape(expected.shape) - expected.astype(np.float64)
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / np.square(noise).sum()))


def latency_ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, float]:
    """(our microseconds, theirs, median of the rounds' ratios).

    Each round times both right after one another, in turn first, so that the machine's mood cancels.
    """
    times = np.empty((ROUNDS, 2))
    for i in range(-WARM_UP, ROUNDS):
        for j in (0, 1) if i % 2 else (1, 0):
            call = (ours, theirs)[j]
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[i, j] = (time.perf_counter() - start) / CALLS * 1e6  # warm-up rounds are overwritten
    a, b = times.T
    return float(np.median(a)), float(np.median(b)), float(np.median(a / b))


def _stored(sample: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """A sample [C, H, W] or [n] as the tensor that `detail` describes."""
    shape = tuple(detail["shape"])
    x = sample[None] if (1, *sample.shape) == shape else np.moveaxis(sample, 0, -1)[None]
    scale, zero_point = detail["quantization"]
    if detail["dtype"] == np.int8:
        return np.clip(np.rint(x / np.float32(scale)) + zero_point, -128, 127).astype(np.int8).reshape(shape)
    return x.astype(np.float32).reshape(shape)
