"""Students of compact blocks, made anew for a budget of multiply-accumulates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from edgecompress.analysis.statistics import statistics
from edgecompress.errors import UnsupportedModelError
from edgecompress.ingest import load
from edgecompress.ingest.passes.edit import static_shape
from edgecompress.ingest.passes.opset import OLDEST
from edgecompress.recipe import Distill
from edgecompress.support.present import present

EXPANSION = 4  # of an inverted residual: channels inside for each one outside
SQUEEZE = 4  # channels that a gate looks at for each one that it computes with
BLOCKS = 2  # of each size of image
SMALLEST_IMAGE, LARGE_IMAGE, MOST_STAGES = 4, 48, 5  # rows: halved no further; halved by the first layer; sizes
FINENESS, LARGEST = 4, 2048  # sizes of students: quarters of a channel of the first stage


def compact(teacher: ir.Model, settings: Distill, seed: int) -> ir.Model:
    """A student of the blocks that settings.student names, as wide as settings.macs allows, with random weights.

    It has the teacher's input and output, and BatchNormalization behind every convolution. Raises
    UnsupportedModelError where the teacher does not turn one image into one row of numbers, or the budget is too
    small for a single channel.
    """
    macs = statistics(teacher).macs

    def network(size: int, seed: int | None = None) -> _Network:
        widths = [max(round(size / FINENESS * 2**n / settings.align), 1) * settings.align for n in range(MOST_STAGES)]
        return _network(teacher, BLOCKS_BY_NAME[str(settings.student)], widths, seed)

    size = bisect_right(range(1, LARGEST + 1), settings.macs * macs, key=lambda size: network(size).macs)
    if not size:
        raise UnsupportedModelError(
            f"[distill] macs = {settings.macs}: a student of {settings.student!r} blocks takes at least "
            f"{network(1).macs / macs:.3g} of the model's multiply-accumulates"
        )
    return load(network(size, seed).proto(teacher), fold_batchnorm=False).model


@dataclass
class _Network:
    """A network that grows layer by layer. seed: of its weights; None counts multiply-accumulates alone.

    value, channels, size: the name, channels and [rows, columns] of what the last layer made.
    """

    seed: int | None
    value: str
    channels: int
    size: tuple[int, ...]
    macs: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def convolution(self, outputs: int, kernel: int, strides: Sequence[int] = (1, 1), groups: int = 1) -> None:
        """A convolution with BatchNormalization; He et al.'s weights."""
        size = tuple(-(-n // s) for n, s in zip(self.size, strides))
        fan = self.channels // groups * kernel**2
        self.macs += outputs * fan * int(np.prod(size))
        if self.seed is not None:
            weight = self.random.standard_normal((outputs, self.channels // groups, kernel, kernel)) * (2 / fan) ** 0.5
            pads = [kernel // 2] * 4
            self._add("Conv", [weight], kernel_shape=[kernel] * 2, strides=list(strides), pads=pads, group=groups)
            one, zero = np.ones(outputs), np.zeros(outputs)
            self._add("BatchNormalization", [one, zero, zero, one])
        self.channels, self.size = outputs, size

    def relu6(self) -> None:
        """min(max(x, 0), 6), which small integers hold well (Howard et al., "MobileNets", 2017)."""
        self._add("Clip", [np.array(0.0), np.array(6.0)])

    def gate(self) -> None:
        """Each channel times a number from 0 to 1 that all channels' means decide (Hu et al., "Squeeze-and-excitation
        networks", CVPR 2018), by HardSigmoid as in MobileNetV3 (Howard et al., 2019)."""
        value, channels, size = self.value, self.channels, self.size
        self._add("GlobalAveragePool", [])
        self.size = (1, 1)
        self.convolution(max(channels // SQUEEZE, 1), 1)
        self._add("Relu", [])
        self.convolution(channels, 1)
        self._add("HardSigmoid", [], alpha=1 / 6, beta=0.5)
        self.size = size
        self.combine("Mul", value)

    def combine(self, op_type: str, other: str) -> None:
        """The value with another of its shape."""
        self.nodes.append(helper.make_node(op_type, [self.value, other], [f"{self.value}_{op_type}"]))
        self.value = f"{self.value}_{op_type}"

    def head(self, outputs: int) -> None:
        """The mean of each channel, and a layer that reads all of them."""
        self._add("GlobalAveragePool", [])
        self._add("Flatten", [])
        self.macs += self.channels * outputs
        if self.seed is not None:
            weight = self.random.standard_normal((outputs, self.channels)) / self.channels**0.5
            self._add("Gemm", [weight, np.zeros(outputs)], transB=1)

    def proto(self, teacher: ir.Model) -> onnx.ModelProto:
        """The network with the teacher's input, output, and Softmax if it ends in one."""
        source, result = teacher.graph.inputs[0], teacher.graph.outputs[0]
        producer = result.producer()
        last = (
            producer.op_type if producer is not None and producer.op_type in ("Softmax", "LogSoftmax") else "Identity"
        )
        attributes: dict[str, Any] = {} if last == "Identity" else {"axis": 1}
        self.nodes.append(helper.make_node(last, [self.value], [str(result.name)], **attributes))
        inputs, outputs = (
            helper.make_tensor_value_info(str(v.name), TensorProto.FLOAT, present(static_shape(v)))
            for v in (source, result)
        )
        graph = helper.make_graph(self.nodes, "student", [inputs], [outputs], self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OLDEST)], ir_version=8)

    def _add(self, op_type: str, constants: Sequence[np.ndarray], **attributes: Any) -> None:
        output = f"value_{len(self.nodes)}"
        names = [f"{output}_{i}" for i in range(len(constants))]
        arrays = [np.asarray(c, np.float32) for c in constants]
        self.tensors += [numpy_helper.from_array(array, name) for array, name in zip(arrays, names)]
        self.nodes.append(helper.make_node(op_type, [self.value, *names], [output], name=output, **attributes))
        self.value = output


def _separable(network: _Network, outputs: int, strides: Sequence[int]) -> None:
    """A depthwise convolution and a 1 x 1 one (Howard et al., "MobileNets", 2017, figure 3)."""
    network.convolution(network.channels, 3, strides, network.channels)
    network.relu6()
    network.convolution(outputs, 1)
    network.relu6()


def _inverted(network: _Network, outputs: int, strides: Sequence[int], gated: bool = False) -> None:
    """1 x 1 to more channels, depthwise, and 1 x 1 to few without an activation, around which the input is added
    where it has the same shape (Sandler et al., "MobileNetV2", CVPR 2018, table 1)."""
    value, before = network.value, (network.channels, network.size)
    network.convolution(EXPANSION * network.channels, 1)
    network.relu6()
    network.convolution(network.channels, 3, strides, network.channels)
    network.relu6()
    if gated:
        network.gate()
    network.convolution(outputs, 1)
    if (network.channels, network.size) == before:
        network.combine("Add", value)


Block = Callable[[_Network, int, Sequence[int]], None]
BLOCKS_BY_NAME: dict[str, Block] = {
    "separable": _separable,
    "mobilenet": _inverted,
    "mobilenet-se": lambda network, outputs, strides: _inverted(network, outputs, strides, gated=True),
}


def _network(teacher: ir.Model, block: Block, widths: Sequence[int], seed: int | None) -> _Network:
    """A first convolution, stages of blocks, each of which halves the image, and a head. widths: channels by stage."""
    shape, outputs, last = _task(teacher)
    network = _Network(seed, str(teacher.graph.inputs[0].name), shape[0], shape[1:])
    if last:
        network._add("Transpose", [], perm=[0, 3, 1, 2])
    network.convolution(widths[0], 3, [2 if n > LARGE_IMAGE else 1 for n in network.size])
    network.relu6()
    for stage, width in enumerate(widths):
        strides = [2 if stage and n > SMALLEST_IMAGE else 1 for n in network.size]
        if stage and strides == [1, 1]:
            break
        for number in range(BLOCKS):
            block(network, width, strides if number == 0 else (1, 1))
    network.head(outputs)
    return network


def _task(teacher: ir.Model) -> tuple[tuple[int, ...], int, bool]:
    """([channels, rows, columns] of the image, numbers of the output, whether channels come last)."""
    inputs, outputs = ([static_shape(v) for v in values] for values in (teacher.graph.inputs, teacher.graph.outputs))
    image, row = inputs[0] if len(inputs) == 1 else None, outputs[0] if len(outputs) == 1 else None
    is_float = teacher.graph.inputs[0].dtype == ir.DataType.FLOAT
    if image is None or row is None or len(image) != 4 or len(row) != 2 or not is_float:
        raise UnsupportedModelError(
            f"[distill] student: compact blocks make models of one float image and one row of numbers, but this one "
            f"has inputs {[list(i or ()) for i in inputs]} and outputs {[list(o or ()) for o in outputs]}; "
            "name a student model's file, or derive one with width, depth or separable"
        )
    last = image[3] in (1, 3, 4) and image[1] > 4
    return ((image[3], *image[1:3]) if last else tuple(image[1:])), row[1], last
