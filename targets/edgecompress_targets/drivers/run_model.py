"""Runs a model in the interpreter that this machine has for it: run_model.py MODEL INPUTS OUTPUTS TIMES [THREADS].

Needs no other file. INPUTS: records, each the inputs' bytes one after the other; OUTPUTS likewise; TIMES: nanoseconds
of each inference, int64. Prints which interpreter it was.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

Loaded = tuple[str, list[tuple[np.dtype, tuple[int, ...]]], Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]]


def pack(path: str, threads: int) -> Loaded:
    """Loads a .pack with edgecompress-runtime: its name, the inputs' (dtype, shape), and a function that runs it."""
    runtime = importlib.import_module("edgecompress_runtime")
    model = runtime.load(path, threads=threads)

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        results = model(*arrays)
        return results if isinstance(results, tuple) else (results,)

    return f"edgecompress-runtime {runtime.__version__}", [(t.dtype, t.shape) for t in model.inputs], run


def tflite(path: str, threads: int) -> Loaded:
    """Loads a .tflite with LiteRT or tflite-runtime. Raises ImportError when neither is installed."""
    for name in ("ai_edge_litert", "tflite_runtime"):
        try:
            module = importlib.import_module(f"{name}.interpreter")
            break
        except ImportError:
            continue
    else:
        raise ImportError("neither ai-edge-litert nor tflite-runtime is installed")
    interpreter = module.Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        for detail, array in zip(inputs, arrays):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return version(name.replace("_", "-")), [(np.dtype(d["dtype"]), tuple(d["shape"])) for d in inputs], run


def onnx(path: str, threads: int) -> Loaded:
    """Loads an .onnx with ONNX Runtime; a batch dimension that is open becomes 1."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return list(session.run(None, {value.name: array for value, array in zip(inputs, arrays)}))

    kinds = []
    for value in inputs:
        shape = tuple(n if isinstance(n, int) else 1 for n in value.shape)  # an open batch axis
        kinds.append((np.dtype(TYPES[value.type]), shape))
    return f"ONNX Runtime {onnxruntime.__version__}", kinds, run


TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip
LOADERS: dict[str, Callable[[str, int], Loaded]] = {"pack": pack, "tflite": tflite, "onnx": onnx}


def version(package: str) -> str:
    """The package's name and installed version, such as "ai-edge-litert 2.1.0"."""
    from importlib import metadata

    return f"{package} {metadata.version(package)}"


def main(model: str, inputs: str, outputs: str, times: str, threads: str = "1") -> None:
    """Runs the model on every record of the file `inputs`; writes the outputs and the nanoseconds of each inference."""
    said, kinds, run = LOADERS[model.rpartition(".")[2]](model, int(threads))
    sizes = [int(np.prod(shape)) * dtype.itemsize for dtype, shape in kinds]
    with open(inputs, "rb") as source, open(outputs, "wb") as target, open(times, "wb") as clock:
        while record := source.read(sum(sizes)):
            ends = np.cumsum(sizes)
            arrays = [
                np.frombuffer(record[end - size : end], dtype).reshape(shape)
                for size, end, (dtype, shape) in zip(sizes, ends, kinds)
            ]
            start = time.perf_counter_ns()
            results = run(arrays)
            taken = time.perf_counter_ns() - start
            for array in results:
                target.write(np.ascontiguousarray(array).tobytes())
            clock.write(taken.to_bytes(8, "little"))
    print(f"interpreter: {said}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
