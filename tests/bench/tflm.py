"""Six networks like those of MLPerf Tiny, int8: our runtime beside TensorFlow Lite Micro's own interpreter.

    [EDGECOMPRESS_BENCH_DATA=DIR] python tests/bench/tflm.py [SAMPLES]

DIR may hold models/ic_resnet8.onnx and models/ad_autoencoder.onnx (mlcommons/tiny); without it these two have random
weights, as the others do. Prints outputs that differ, of how many, in TFLM and in LiteRT's reference kernels (on the
first 100 samples), and what TFLM's arena takes beside our own. Needs tflite-micro. Exit code 1 if any output of TFLM's
differs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from edgecompress.compress.quantize import quantize
from edgecompress.emit import pack, tflite
from edgecompress.evaluate.dataset import load_data
from edgecompress.evaluate.interpreters import LiteRT, PackRuntime
from edgecompress.evaluate.micro import TFLM, installed
from edgecompress.ingest import load
from edgecompress.recipe import Preprocess, Quantize
from edgecompress_runtime.codegen.program import program_of
from edgecompress_runtime.families.table import family_of

Shape = tuple[int, ...]
FEW = 100  # samples for LiteRT's reference kernels


class Graph:
    """An ONNX model of random weights; values are named by number."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shape, self.channels = shape, shape[1]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = "x"

    def held(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        self.last = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [self.last], **attributes))
        return self.last

    def convolution(self, out: int, kernel: Shape, stride: int = 1, groups: int = 1, relu: bool = True) -> str:
        depth = self.channels // groups * int(np.prod(kernel))
        w = self.held(self.random.normal(0, (2 / depth) ** 0.5, (out, self.channels // groups, *kernel)))
        bias = self.held(self.random.normal(0, 0.1, out))
        window = {
            "strides": [stride] * len(kernel),
            "kernel_shape": list(kernel),
            "group": groups,
            "auto_pad": "SAME_UPPER",
        }
        y = self.node("Conv", self.last, w, bias, **window)
        self.channels = out
        return self.node("Relu", y) if relu else y

    def separable(self, out: int, kernel: Shape, stride: int = 1) -> None:
        self.convolution(self.channels, kernel, stride, self.channels)
        self.convolution(out, (1,) * len(kernel))

    def dense(self, units: int, depth: int, relu: bool = False) -> str:
        w = self.held(self.random.normal(0, (2 / depth) ** 0.5, (units, depth)))
        y = self.node("Gemm", self.last, w, self.held(self.random.normal(0, 0.1, units)), transB=1)
        return self.node("Relu", y) if relu else y

    def classified(self, classes: int) -> None:
        self.node("GlobalAveragePool", self.last)
        self.node("Flatten", self.last)
        self.dense(classes, self.channels)
        self.node("Softmax", self.last, axis=-1)

    def model(self) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        outs = [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "g", ends, outs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def resnet8() -> onnx.ModelProto:
    """Image classification."""
    net = Graph((1, 3, 32, 32), 0)
    net.convolution(16, (3, 3))
    for out, stride in ((16, 1), (32, 2), (64, 2)):
        entry, channels = net.last, net.channels
        net.convolution(out, (3, 3), stride)
        main = net.convolution(out, (3, 3), relu=False)
        if stride > 1:
            net.last, net.channels = entry, channels
            entry = net.convolution(out, (1, 1), stride, relu=False)
        net.node("Relu", net.node("Add", main, entry))
    net.classified(10)
    return net.model()


def autoencoder() -> onnx.ModelProto:
    """Anomaly detection."""
    net, depth = Graph((1, 640), 1), 640
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        net.dense(units, depth, relu=True)
        depth = units
    net.dense(640, depth)
    return net.model()


def ds_cnn() -> onnx.ModelProto:
    """Keyword spotting."""
    net = Graph((1, 1, 49, 10), 2)
    net.convolution(64, (10, 4), 2)
    for _ in range(4):
        net.separable(64, (3, 3))
    net.classified(12)
    return net.model()


def mobilenet() -> onnx.ModelProto:
    """Visual wake words: MobileNet v1, a quarter as wide."""
    net = Graph((1, 3, 96, 96), 3)
    net.convolution(8, (3, 3), 2)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for out, stride in zip((16, 32, 32, 64, 64, *[128] * 6, 256, 256), strides, strict=True):
        net.separable(out, (3, 3), stride)
    net.classified(2)
    return net.model()


def wake_word() -> onnx.ModelProto:
    """Streaming wake word: a one-dimensional DS-CNN."""
    net = Graph((1, 40, 30), 4)
    net.convolution(64, (3,))
    for out in (64, 96, 128):
        net.separable(out, (5,))
    net.classified(3)
    return net.model()


def person() -> onnx.ModelProto:
    """A small detector's backbone: inverted residuals with HardSwish, and two heads' worth of outputs in one."""
    net = Graph((1, 3, 48, 48), 5)
    net.node("HardSwish", net.convolution(16, (3, 3), 2, relu=False))
    for out, stride in ((16, 1), (24, 2), (24, 1), (40, 2)):
        entry, channels = net.last, net.channels
        net.convolution(channels * 4, (1, 1))
        net.convolution(channels * 4, (3, 3), stride, channels * 4)
        y = net.convolution(out, (1, 1), relu=False)
        if stride == 1 and out == channels:
            net.node("Add", y, entry)
    net.convolution(6, (1, 1), relu=False)
    return net.model()


NETWORKS = {
    "ic_resnet8": resnet8, "ad_autoencoder": autoencoder, "ds_cnn": ds_cnn, "mobilenet": mobilenet,
    "wake_word": wake_word, "person": person,
}  # fmt: skip


def quantized(name: str) -> ir.Model:
    path = Path(os.environ.get("EDGECOMPRESS_BENCH_DATA", "")) / "models" / f"{name}.onnx"
    model = load(str(path)).model if path.is_file() else load(NETWORKS[name]()).model
    data = load_data(samples(model, 100, 0), model.graph.inputs, Preprocess())
    return quantize(model, data, Quantize(), integer_only=True).model


def samples(model: ir.Model, count: int, seed: int) -> np.ndarray:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return np.random.default_rng(seed).normal(0, 1, (count, *shape.numpy()[1:])).astype(np.float32)


def compared(name: str, count: int) -> tuple[list[str], bool]:
    model = quantized(name)
    file, packed = tflite.emit(model, io_dtype=ir.DataType.INT8), pack.emit(model, io_dtype=ir.DataType.INT8)
    feed = {file.inputs[0].name: samples(model, count, 1)}
    micro = TFLM(file.data, file)
    (theirs,), (ours,) = micro.run(feed), PackRuntime(packed.data, packed).run(feed)
    few = {key: array[:FEW] for key, array in feed.items()}
    (reference,) = LiteRT(file.data, file, reference=True).run(few)
    different, other = int((theirs != ours).sum()), int((reference != ours[:FEW]).sum())
    plan = pack.plan(model, io_dtype=ir.DataType.INT8)
    arena = program_of(plan, "model", family_of("thumbv7em-none-eabihf", ("+dsp",)), 4).interface.layout.size
    assert micro.arena is not None
    memory = f"{micro.arena.head:,} + {micro.arena.persistent:,}"
    row = [name, f"{different:,} of {ours.size:,}", f"{other:,} of {reference.size:,}", memory, f"{arena:,}"]
    return row, different == 0


def main() -> int:
    if not installed():
        print(f"skipped: tflite-micro is not installed\n\n{__doc__}")
        return 0
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    table, good = Table("network", "TFLM differs", "LiteRT reference differs", "TFLM's arena", "our arena, M4"), True
    for name in NETWORKS:
        row, equal = compared(name, count)
        print(" | ".join(row), flush=True)
        table.add_row(*row)
        good &= equal
    Console(width=120).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
