"""The same network with narrower layers."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.fusion import constant
from edgecompress.ingest.normalise import normalise
from edgecompress.ingest.passes.edit import Edit, static_shape

LINEAR = ("Conv", "ConvTranspose", "Gemm")
Shape = tuple[int, ...]


def narrowed(model: ir.Model, multiplier: float, align: int = 1) -> ir.Model:
    """A copy whose hidden layers have `multiplier` times the channels, rounded to a multiple of `align`.

    Every layer shrinks by the same rule, so that what is added up stays equal in width; layers that outputs come
    from keep theirs. Weights are the first channels of the old ones: they are there for their shape.
    Raises UnsupportedModelError, naming the node, where the rule doesn't tell the new shape.
    """
    model = model.clone()
    narrowing = _Narrowing(model.graph, lambda n: min(n, max(1, round(n * multiplier / align)) * align))
    for node in list(model.graph):
        narrowing(node)
    for value, shape in narrowing.shapes.items():
        value.shape = ir.Shape(shape)
    return normalise(model, {}, fold_batchnorm=False)


class _Narrowing:
    """shapes: of the values that have been dealt with, in the narrower network."""

    def __init__(self, graph: ir.Graph, rule: Callable[[int], int]) -> None:
        self.shapes: dict[ir.Value, Shape] = {v: static_shape(v) for v in graph.inputs}
        self._edit, self._kept, self._rule = Edit(graph), _last_layers(graph), rule

    def __call__(self, node: ir.Node) -> None:
        """Gives the node's constants their new shapes."""
        old = static_shape(node.outputs[0])
        inputs = [self.shapes[v] for v in node.inputs if v in self.shapes]
        if old is None or not inputs or node.op_type not in CHANNELS:
            raise _unknown(node)
        self.shapes[node.outputs[0]] = CHANNELS[node.op_type](self, node, inputs, old)

    def linear(self, node: ir.Node, inputs: list[Shape], old: Shape) -> Shape:
        weight, bias = constant(node.inputs[1]), constant(node.inputs[2])
        groups, read = int(node.attributes.get_int("group", 1)), inputs[0][1]
        outputs = len(weight) if node in self._kept else self._rule(len(weight))
        if groups == len(weight) and groups > 1 and weight.shape[1] == 1:  # depthwise
            outputs = groups = read
            node.attributes.add(ir.AttrInt64("group", groups))
        if read % groups or outputs % groups or read // groups > weight.shape[1] or outputs > len(weight):
            raise _unknown(node)
        self._replace(node, 1, weight[:outputs, : read // groups])
        self._replace(node, 2, bias[:outputs])
        return (old[0], outputs, *old[2:])

    def transposed(self, node: ir.Node, inputs: list[Shape], old: Shape) -> Shape:
        weight, bias = constant(node.inputs[1]), constant(node.inputs[2])  # weight [in, out / groups, ..]
        outputs = len(bias) if node in self._kept else self._rule(len(bias))
        if node.attributes.get_int("group", 1) != 1 or inputs[0][1] > len(weight):
            raise _unknown(node)
        self._replace(node, 1, weight[: inputs[0][1], :outputs])
        self._replace(node, 2, bias[:outputs])
        return (old[0], outputs, *old[2:])

    def concatenated(self, node: ir.Node, inputs: list[Shape], old: Shape) -> Shape:
        if node.attributes.get_int("axis", 0) != 1 or len(inputs) != len(node.inputs):
            raise _unknown(node)
        return (old[0], sum(s[1] for s in inputs), *old[2:])

    def reshaped(self, node: ir.Node, inputs: list[Shape], old: Shape) -> Shape:
        """Flattening: one dimension of the target takes up what the input has lost."""
        before = static_shape(node.inputs[0])
        lost = [i for i, n in enumerate(old) if n > 1 and n % before[1] == 0]
        new = tuple(n // before[1] * inputs[0][1] if i in lost else n for i, n in enumerate(old))
        if inputs[0] != before and math.prod(new) != math.prod(inputs[0]):
            raise _unknown(node)
        self._replace(node, 1, np.array(new if inputs[0] != before else old, np.int64))
        return new if inputs[0] != before else old

    def reduced(self, node: ir.Node, inputs: list[Shape], old: Shape) -> Shape:
        axes = constant(node.inputs[1])
        if axes is None or (axes < 2).any():
            raise _unknown(node)
        return (old[0], inputs[0][1], *old[2:])

    def resized(self, node: ir.Node, inputs: list[Shape], old: Shape) -> Shape:
        new = (old[0], inputs[0][1], *old[2:])
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            self._replace(node, 3, np.array(new, np.int64))
        return new

    def same(self, node: ir.Node, inputs: list[Shape], old: Shape) -> Shape:
        """As many channels as the inputs; a constant for each channel loses some."""
        counts = {s[1] for s in inputs if len(s) > 1} - {1} or {1}
        if len(counts) > 1 or len(old) < 2:
            raise _unknown(node)
        count = counts.pop()
        for i, value in enumerate(node.inputs):
            array = constant(value)
            if array is not None and value.dtype == ir.DataType.FLOAT:
                axis = 0 if node.op_type.endswith("Normalization") else array.ndim - len(old) + 1
                if 0 <= axis < array.ndim and array.shape[axis] == old[1] > 1:
                    self._replace(node, i, np.take(array, range(count), axis))
        return (old[0], count, *old[2:])

    def _replace(self, node: ir.Node, position: int, array: np.ndarray) -> None:
        node.replace_input_with(position, self._edit.constant(str(node.inputs[position].name), array))


# operator -> the shape of its output in the narrower network
CHANNELS: dict[str, Callable[[_Narrowing, ir.Node, list[Shape], Shape], Shape]] = {
    "Concat": _Narrowing.concatenated,
    "Conv": _Narrowing.linear,
    "ConvTranspose": _Narrowing.transposed,
    "Gemm": _Narrowing.linear,
    "ReduceMax": _Narrowing.reduced,
    "ReduceMean": _Narrowing.reduced,
    "ReduceSum": _Narrowing.reduced,
    "Reshape": _Narrowing.reshaped,
    "Resize": _Narrowing.resized,
} | dict.fromkeys(
    "Abs Add AveragePool BatchNormalization Clip Div Elu Erf Exp Gelu GlobalAveragePool GlobalMaxPool HardSigmoid "
    "HardSwish Identity InstanceNormalization LeakyRelu Log LogSoftmax Max MaxPool Min Mul Neg PRelu Pad Pow "
    "Reciprocal Relu Sigmoid Softmax Sqrt Sub Tanh".split(),
    _Narrowing.same,
)


def _last_layers(graph: ir.Graph) -> set[ir.Node]:
    """Linear layers between which and an output there is no other."""
    found, frontier, seen = set(), list(graph.outputs), set()
    while frontier:
        node = frontier.pop().producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.op_type in LINEAR:
            found.add(node)
        else:
            frontier.extend(v for v in node.inputs if v is not None)
    return found


def _unknown(node: ir.Node) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"node {node.name!r} ({node.op_type}): can't tell its shape in a narrower network; give the student as a "
        "model of its own: [distill] student"
    )
