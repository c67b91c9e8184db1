"""One file of the zoo in its interpreter, in a process of its own: what it computes, how fast, and in how much memory.

    python tests/bench/zoo_file.py FLOAT.onnx FILE INPUTS.npz OUTPUTS.npz

INPUTS: name -> [count, ...], each sample as the .onnx model takes it, without its batch axis. OUTPUTS gets name ->
[count, ...] as FILE has them, axes in its order. Prints one line of JSON: the microseconds of processor time that one
inference takes in one thread; its ratio to FLOAT's in ONNX Runtime, both taken in turn; and by how many MiB the
process grew from before FILE was loaded to after its inferences.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

Sample = dict[str, np.ndarray]  # name of an input -> [...]
Prepared = Callable[[], Any]  # one inference on inputs that are set
ROUNDS, SECONDS, SHORTEST = 11, 4.0, 2e-3  # rounds of a comparison, its longest time, that of a round


class Onnx:
    """A model in ONNX Runtime, one thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [o.name for o in self.session.get_outputs()]

    def prepare(self, sample: Sample) -> Prepared:
        """A call of `run`."""
        feed = {
            v.name: sample[v.name] if len(v.shape) == sample[v.name].ndim else sample[v.name][None]
            for v in self.session.get_inputs()
        }
        return lambda: self.session.run(None, feed)

    def outputs(self, result: list[np.ndarray]) -> dict[str, np.ndarray]:
        """name -> output, as they are."""
        return dict(zip(self.names, result, strict=True))


class TFLite:
    """A model in LiteRT with its default kernels, one thread."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=str(path), num_threads=1)
        self.interpreter.allocate_tensors()

    def prepare(self, sample: Sample) -> Prepared:
        """A call of `invoke`, as programs make it: what sets inputs is not part of it."""
        details = self.interpreter.get_input_details()
        given = matched([d["name"] for d in details], [tuple(d["shape"]) for d in details], sample)
        for detail, x in zip(details, given, strict=True):
            self.interpreter.set_tensor(detail["index"], stored(x, detail["dtype"], *detail["quantization"]))
        return self.interpreter.invoke

    def outputs(self, result: None) -> dict[str, np.ndarray]:
        """name -> output, as real numbers."""
        made = {}
        for detail in self.interpreter.get_output_details():
            x, (scale, zero_point) = self.interpreter.get_tensor(detail["index"]), detail["quantization"]
            made[detail["name"]] = (x.astype(np.float32) - zero_point) * np.float32(scale) if scale else x
        return made


class Pack:
    """A model in this project's runtime, one thread."""

    def __init__(self, path: Path) -> None:
        from edgecompress_runtime import load

        self.model = load(path)

    def prepare(self, sample: Sample) -> Prepared:
        """A call of the model."""
        tensors = self.model.inputs
        given = matched([t.name for t in tensors], [t.shape for t in tensors], sample)
        arrays = [stored(x, t.dtype, *_quantization(t)) for x, t in zip(given, tensors, strict=True)]
        return lambda: self.model(*arrays)

    def outputs(self, result: Any) -> dict[str, np.ndarray]:
        """name -> output, as real numbers."""
        made = {}
        for tensor, x in zip(self.model.outputs, result if isinstance(result, tuple) else (result,), strict=True):
            scale, zero_point = _quantization(tensor)
            made[tensor.name] = (x.astype(np.float32) - zero_point) * np.float32(scale) if scale else x
        return made


INTERPRETERS: dict[str, type[Onnx | TFLite | Pack]] = {".onnx": Onnx, ".tflite": TFLite, ".pack": Pack}


def _quantization(tensor: Any) -> tuple[float, int]:
    scale = np.ravel(tensor.scale) if tensor.scale is not None else np.zeros(0)
    return (float(scale[0]), int(np.ravel(tensor.zero_point)[0])) if len(scale) == 1 else (0.0, 0)


def matched(names: list[str], shapes: list[tuple[int, ...]], sample: Sample) -> list[np.ndarray]:
    """The sample's arrays for inputs of a file: by name where the names are the same, else by shape."""
    left = {plain(name): x for name, x in sample.items()}
    given = []
    for name, shape in zip(names, shapes, strict=True):
        fitting = [n for n, x in left.items() if fitted(x, shape) is not None]
        chosen = plain(name) if plain(name) in left else fitting[0]
        x = fitted(left.pop(chosen), shape)
        if x is None:
            raise ValueError(f"input {name} of shape {shape} fits no sample")
        given.append(x)
    return given


def plain(name: str) -> str:
    """A name as tools change it: serving_default_x:0 -> x; but y:1 is another than y:0."""
    short = name.removeprefix("serving_default_").removesuffix(":0")
    return short.replace("/", "_").replace(".", "_").replace(":", "_").strip("_").lower()


def fitted(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """x with that shape: with a batch axis, or with its channels behind the other axes."""
    for candidate in (x, x[None]):
        if candidate.shape == tuple(shape):
            return candidate
        if candidate.ndim == len(shape) > 2 and np.moveaxis(candidate, 1, -1).shape == tuple(shape):
            return np.ascontiguousarray(np.moveaxis(candidate, 1, -1))
    for candidate in (x, x[None]):  # layouts that are neither
        if candidate.ndim == len(shape) <= 4:
            for axes in permutations(range(candidate.ndim)):
                if candidate.transpose(axes).shape == tuple(shape):
                    return np.ascontiguousarray(candidate.transpose(axes))
    return x.reshape(shape) if x.size == np.prod(shape) else None


def stored(x: np.ndarray, dtype: Any, scale: float, zero_point: int) -> np.ndarray:
    """Real numbers as an input of that type holds them."""
    if not scale:
        return np.ascontiguousarray(x, dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(x / scale) + zero_point, limits.min, limits.max).astype(dtype)


def compared(call: Prepared, other: Prepared) -> tuple[float, float]:
    """(seconds of processor time of a call, its ratio to the other's): medians of rounds in turn."""
    shortest = [min(_once(c, 1) for _ in range(3)) for c in (call, other)]
    calls = [min(max(1, int(SHORTEST / max(t, 1e-7))), 1000) for t in shortest]
    taken, ratios, start = [], [], time.perf_counter()
    while len(taken) < ROUNDS and (len(taken) < 3 or time.perf_counter() - start < SECONDS):
        a, b = _once(call, calls[0]), _once(other, calls[1])
        taken.append(a)
        ratios.append(a / b)
    return float(np.median(taken)), float(np.median(ratios))


def _once(call: Prepared, count: int) -> float:
    start = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - start) / count


def _resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(reference: Path, file: Path, source: Path, target: Path) -> int:
    with np.load(source) as archive:
        arrays = {name: archive[name] for name in archive.files}
    samples = [dict(zip(arrays, rows)) for rows in zip(*arrays.values())]
    samples = [{name: np.asarray(x) for name, x in sample.items()} for sample in samples]
    kind = INTERPRETERS[file.suffix]
    if kind is Pack:
        import edgecompress_runtime.loading.model  # noqa: F401 (what imports is no memory of the model)
    else:
        import ai_edge_litert.interpreter  # noqa: F401
        import onnxruntime  # noqa: F401
    if kind is Pack and (child := os.fork()) == 0:  # compiles it, which is no part of the model's memory
        loaded = Pack(file)
        loaded.prepare(samples[0])()
        os._exit(0)
    elif kind is Pack:
        os.waitpid(child, 0)
    before = _resident()
    loaded = kind(file)
    rows = [loaded.outputs(loaded.prepare(sample)()) for sample in samples]  # type: ignore[arg-type]
    megabytes = _resident() - before
    np.savez(target, **{name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]})
    seconds, ratio = compared(loaded.prepare(samples[0]), Onnx(reference).prepare(samples[0]))
    print(json.dumps({"microseconds": 1e6 * seconds, "ratio": ratio, "megabytes": megabytes}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
