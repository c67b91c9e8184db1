"""A detector's boxes (0 to 640) and 80 scores in one output: what scales of their own cost, beside one scale for all.

    python tests/bench/detector.py [small|large ...]

Random weights from seeds. Prints the ratio of signal to noise of the scores on fresh samples, the time of an inference
on this machine (`.pack` by `load`, `.tflite` by LiteRT; of the thread, the best of rounds in turn), and instructions on
an emulated Cortex-M4, where the parts are outputs. Exit code 1 where scores have less than 25 dB, or take more than 3 %
longer than with one scale. Needs qemu-system-arm and arm-none-eabi-gcc.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table
from tflm import Graph

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from ahead import on_board

from edgecompress.compress.quantize import joins, quantize
from edgecompress.emit import pack, tflite
from edgecompress.emit.pack import plan as lowered
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import LiteRT, OnnxRuntime, PackRuntime
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress_runtime import load as load_pack
from edgecompress_runtime.plan import Plan

MOST, LEAST = 1.03, 25.0  # the most time, in that with one scale; dB
ROUNDS = 60
# name -> (height and width, channels of the backbone's layers of stride 2, from which on there is a head each)
DETECTORS = {"small": (64, (16, 32, 64), 2), "large": (320, (16, 32, 64, 128, 256), 2)}


def detector(size: int, widths: tuple[int, ...], first: int) -> onnx.ModelProto:
    """A backbone whose layers of stride 2 have a layer of stride 1 behind each, and heads for boxes and scores."""
    net = Graph((1, 3, size, size), 7)
    ends = []
    for number, width in enumerate(widths):
        net.convolution(width, (3, 3), 2)
        net.convolution(width, (3, 3))
        if number >= first:
            ends.append(head(net))
    net.node("Concat", *ends, axis=2)
    graph = helper.make_graph(
        net.nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, net.shape)],
        [helper.make_tensor_value_info(net.last, TensorProto.FLOAT, None)],
        net.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def head(net: Graph) -> str:
    """[1, 84, cells] of the last layer, which stays it."""
    body, channels = net.last, net.channels
    parts = []
    for count in (4, 80):
        net.last, net.channels = body, channels
        net.convolution(count, (1, 1), relu=False)
        if count == 80:
            net.node("Sub", net.last, net.held(np.float32(2)))
        net.node("Sigmoid", net.last)
        if count == 4:
            net.node("Mul", net.last, net.held(np.float32(640)))
        net.constants.append(onnx.numpy_helper.from_array(np.array([1, count, -1]), f"s{len(net.nodes)}"))
        parts.append(net.node("Reshape", net.last, f"s{len(net.nodes)}"))
    joined = net.node("Concat", *parts, axis=1)
    net.last, net.channels = body, channels
    return joined


def snr(exact: np.ndarray, found: np.ndarray) -> float:
    noise = np.square(np.float64(exact) - found).sum()
    return float(10 * np.log10(np.square(np.float64(exact)).sum() / max(noise, 1e-30)))


def in_turn(runs: list[Callable[[], object]]) -> list[float]:
    """Microseconds of each, by the time of this thread: the best of ROUNDS."""
    best = [np.inf] * len(runs)
    calls = []
    for run in runs:
        run()
        start = time.thread_time()
        run()
        calls.append(max(1, int(0.01 / max(time.thread_time() - start, 1e-6))))
    for _ in range(ROUNDS):
        for i, run in enumerate(runs):
            start = time.thread_time()
            for _ in range(calls[i]):
                run()
            best[i] = min(best[i], (time.thread_time() - start) / calls[i] * 1e6)
    return best


def packed(data: bytes, x: np.ndarray) -> Callable[[], object]:
    model = load_pack(data)
    return lambda: model(x)


def lite(data: bytes, x: np.ndarray) -> Callable[[], object]:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    return interpreter.invoke


def quantized(model: ir.Model, *, integer_only: bool, one_scale: bool) -> ir.Model:
    data = load_data(samples(model, 24, 0), model.graph.inputs, Preprocess())
    with mock.patch.object(joins, "UNLIKE", np.inf if one_scale else joins.UNLIKE):
        return quantize(model, data, Quantize(), integer_only=integer_only).model


def samples(model: ir.Model, count: int, seed: int) -> np.ndarray:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return np.random.default_rng(seed).normal(0, 1, (count, *shape.numpy()[1:])).astype(np.float32)


def on_m4(plan: Plan) -> float:
    """Million instructions."""
    record = [np.random.default_rng(0).integers(-128, 128, plan.tensors[i].shape).astype(np.int8) for i in plan.inputs]
    with tempfile.TemporaryDirectory() as folder:
        return float(on_board("cortex-m4", plan, [record], Path(folder) / "model.elf")[1].instructions) / 1e6


def measured(name: str, table: Table) -> bool:
    model = load(detector(*DETECTORS[name])).model
    fresh = samples(model, 8, 1)
    feed = {str(model.graph.inputs[0].name): fresh}
    (exact,) = OnnxRuntime(model).run(feed)
    x = np.ascontiguousarray(fresh[:1].transpose(0, 2, 3, 1))
    models = [quantized(model, integer_only=False, one_scale=one) for one in (True, False)]
    packs = [pack.emit(m, io_dtype=ir.DataType.FLOAT) for m in models]
    (found,) = PackRuntime(packs[1].data, packs[1]).run(feed)
    ratio = snr(exact[:, 4:], found[:, 4:])
    good = row(table, name, ".pack, this machine, us", in_turn([packed(p.data, x) for p in packs]), ratio)
    files = [tflite.emit(m, io_dtype=ir.DataType.FLOAT) for m in models]
    (found,) = LiteRT(files[1].data, files[1]).run(feed)
    ratio = snr(exact[:, 4:], found[:, 4:])
    good &= row(table, name, ".tflite, LiteRT, us", in_turn([lite(f.data, x) for f in files]), ratio)
    integers = [quantized(model, integer_only=True, one_scale=one) for one in (True, False)]
    counts = [on_m4(lowered(m, io_dtype=ir.DataType.INT8)) for m in integers]
    return good & row(table, name, ".pack, Cortex-M4, million instructions", counts, ratio)


def row(table: Table, name: str, where: str, pair: list[float], ratio: float) -> bool:
    one, own = pair
    holds = own <= MOST * one and ratio >= LEAST
    table.add_row(name, where, f"{one:,.1f}", f"{own:,.1f}", f"{100 * (own / one - 1):+.1f} %", f"{ratio:.1f} dB")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure detectors.")
    parser.add_argument("names", nargs="*", default=list(DETECTORS))
    given = parser.parse_args()
    table = Table("detector", "measured", "one scale", "scales of their own", "slower", "scores")
    good = True
    for name in given.names:
        good &= measured(name, table)
    Console(width=130).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
