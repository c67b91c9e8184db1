"""A MobileNet in which two thirds of the later channels are all but zero, as weight decay leaves them.

    python tests/bench/near_zero.py [--here]

MobileNetV1 0.25 for images of 96x96, with random weights, and BatchNorm statistics of its own data; from the middle on,
two thirds of the channels have weights of 1e-12 to 1e-20, so that their BatchNorm gives one value. Instructions on
emulated Cortex-M boards, bytes of flash and of the arena, and with --here the time of a call on this machine beside
LiteRT's, as it is and without its dead channels. Every output is compared with the plain kernels', bit for bit. Needs
qemu-system-arm and arm-none-eabi-gcc. Exits 1 when an output differs.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import measure
import numpy as np
import onnx
import onnx_ir as ir
from cortex_m import emulated
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import edgecompress_runtime
from edgecompress.analysis.statistics import statistics
from edgecompress.compress.prune.dead import remove_dead_channels
from edgecompress.compress.prune.measured_values import difference_on_data, measured_values
from edgecompress.compress.quantize import quantize
from edgecompress.emit import tflite
from edgecompress.emit.pack import plan as lowered
from edgecompress.evaluate.dataset import load_data
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress_runtime.execute import Executor
from edgecompress_runtime.pack import write_pack

SIZE, CLASSES, EPSILON, SEED = 96, 2, 1e-3, 0
# output channels of each pointwise layer, stride of the depthwise one in front of it
BLOCKS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))
HEALTHY, ALIVE = 6, 1 / 3  # blocks before the first with channels that are all but zero; the share of others behind it
CPUS = ("cortex-m4", "cortex-m55")


class Graph:
    """An ONNX model, and beside it what the last value is for some images, [n, channels, height, width]."""

    def __init__(self, images: np.ndarray) -> None:
        self.random = np.random.default_rng(SEED)
        self.images, self.values, self.last = images, images, "x"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def held(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> None:
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [f"v{len(self.nodes)}"], **attributes))
        self.last = f"v{len(self.nodes) - 1}"

    def layer(self, out: int, kernel: int, stride: int, depthwise: bool, dead: np.ndarray) -> None:
        """Convolution, BatchNorm and ReLU; dead: which channels are all but zero."""
        groups = out if depthwise else 1
        w = self.random.normal(0, 1, (out, self.values.shape[1] // groups, kernel, kernel))
        w[dead] *= (
            10.0 ** self.random.uniform(-20, -12, (dead.sum(), 1, 1, 1))
            / np.abs(w[dead]).max((1, 2, 3))[:, None, None, None]
        )
        pads = [kernel // 2 if stride == 1 else 0] * 2 + [kernel // 2] * 2  # as TensorFlow has it
        self.node("Conv", self.held(w), strides=[stride] * 2, pads=pads, group=groups)
        sums = _convolution(self.values, w.astype(np.float32), stride, pads[0], groups)
        mean, variance = sums.mean((0, 2, 3)), sums.var((0, 2, 3))
        gamma, beta = self.random.uniform(0.6, 1.4, out), self.random.normal(0, 0.4, out)
        self.node("BatchNormalization", *map(self.held, (gamma, beta, mean, variance)), epsilon=EPSILON)
        self.node("Relu")
        column = (slice(None), None, None)
        normal = (sums - mean[column]) / np.sqrt(variance + EPSILON)[column]
        self.values = np.maximum(normal * gamma[column] + beta[column], 0)

    def model(self) -> onnx.ModelProto:
        mean = self.values.mean((2, 3))
        self.node("GlobalAveragePool")
        self.node("Flatten")
        w = self.random.normal(0, mean.std() ** -1, (CLASSES, mean.shape[1])) / mean.shape[1] ** 0.5
        self.node("Gemm", self.held(w), self.held(-(mean @ w.T).mean(0)), transB=1)
        shapes = (("x", (1, *self.images.shape[1:])), (self.last, (1, CLASSES)))
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
        graph = helper.make_graph(self.nodes, "mobilenet", ends[:1], ends[1:], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _convolution(x: np.ndarray, w: np.ndarray, stride: int, front: int, groups: int) -> np.ndarray:
    """Of a square window; `front`: rows of zeros in front, half a window behind."""
    kernel = w.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), *[(front, kernel // 2)] * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    if groups > 1:
        return np.einsum("nchwyx,cyx->nchw", windows, w[:, 0], optimize=True)
    return np.einsum("nchwyx,ocyx->nohw", windows, w, optimize=True)


def images(count: int, seed: int) -> np.ndarray:
    """float32 [n, 3, SIZE, SIZE] in 0 to 1: smooth, as photographs are."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 1, (count, 3, SIZE // 8, SIZE // 8)).repeat(8, 2).repeat(8, 3)
    return np.clip(coarse + random.normal(0, 0.05, coarse.shape), 0, 1).astype(np.float32)


def mobilenet() -> onnx.ModelProto:
    """With BatchNorm, as it comes from training."""
    graph = Graph(images(16, 1))
    graph.layer(8, 3, 2, False, np.zeros(8, bool))
    dead = np.zeros(8, bool)
    for number, (out, stride) in enumerate(BLOCKS):
        graph.layer(len(dead), 3, stride, True, dead)
        dead = np.zeros(out, bool)
        if number >= HEALTHY:
            dead[graph.random.permutation(out)[int(out * ALIVE) :]] = True
        graph.layer(out, 1, 1, False, dead)
    return graph.model()


def main() -> int:
    here, failed = "--here" in sys.argv, 0
    table = Table("channels", "M MACs", *(f"{c}: M instructions, flash, arena" for c in CPUS), "here / LiteRT", "exact")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "mobilenet.onnx"
        onnx.save(mobilenet(), path)
        whole = load(path).model
        data = load_data(images(60, 2), whole.graph.inputs, Preprocess())
        smaller, gone = remove_dead_channels(whole, partial(measured_values, dataset=data))
        print(f"outputs differ by {difference_on_data(whole, smaller, data):.0e} on the data")
        print("\n".join(map(str, gone)))
        for name, model in (("all", whole), ("without dead ones", smaller)):
            *cells, exact = measured(model, Path(work), here)
            table.add_row(name, *cells, "yes" if exact else "NO", style=None if exact else "red")
            failed += not exact
    Console(width=140).print(table)
    return 1 if failed else 0


def measured(model: ir.Model, work: Path, here: bool) -> tuple[str, str, str, str, bool]:
    data = load_data(images(60, 2), model.graph.inputs, Preprocess())
    quantized = quantize(model, data, Quantize(), integer_only=True).model
    plan = lowered(quantized, io_dtype=ir.DataType.INT8)
    x = plan.tensors[plan.inputs[0]]
    real = images(4, 3).transpose(0, 2, 3, 1)
    records = np.clip(np.round(real / x.scale[0]) + x.zero, -128, 127).astype(np.int8)
    expected = b"".join(Executor(plan)(r[None])[0].tobytes() for r in records)
    cells, exact = [], True
    for cpu in CPUS:
        compiled, run = emulated(plan, records, cpu)
        cells.append(f"{run.instructions / 1e6:.3f}, {compiled.flash:,}, {compiled.program.layout.size:,}")
        exact &= run.outputs == expected
    ratio = ""
    if here:
        pack, file, record = work / "mobilenet.pack", work / "mobilenet.tflite", records[:1]
        pack.write_bytes(write_pack(plan, "mobilenet"))
        file.write_bytes(tflite.emit(quantized, io_dtype=ir.DataType.INT8).data)
        ours = edgecompress_runtime.load(pack)
        exact &= ours(record).tobytes() == expected[:CLASSES]
        caller = measure.tflite_caller(file, images(4, 3)[0])
        us, theirs, of_theirs = measure.latency_ratio(lambda: ours(record), caller)
        ratio = f"{of_theirs:.2f} ({us:.0f} / {theirs:.0f} us)"
    return f"{statistics(model).macs / 1e6:.2f}", cells[0], cells[1], ratio, exact


if __name__ == "__main__":
    sys.exit(main())
