"""The classifiers of early exits: pooling and one dense layer.

After Kaya, Hong and Dumitras, Shallow-Deep Networks: Understanding and Mitigating Network Overthinking (2019), section
4: one layer behind feature maps that were pooled to a few positions keeps where things are, and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.statistics import statistics
from edgecompress.graph.annotations import EXIT_STEPS, Exit, set_exits
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.nodes import argument
from edgecompress.support.present import present

GRIDS = (4, 2, 1)  # rows and columns that feature maps are pooled to
SHARE = 1 / 8  # of the network's parameters that all exits may take before their grids become coarser
LAYERS = {"Conv": 1, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}  # axis of what they make that channels lie along


def with_exits(model: ir.Model, values: Sequence[ir.Value], activation: str) -> ir.Model:
    """A copy of a canonical classifier with an untrained exit behind each of these values, which is never taken.

    The outputs of exits follow the model's own: what each gives in its place, and its probabilities where these are
    not the same. activation: what makes the model's output of scores, "Softmax", "LogSoftmax" or "" for none.
    """
    result = model.clone()
    graph, own = result.graph, {str(v.name): v for n in result.graph for v in n.outputs}
    classes = shape(graph.outputs[0])[1]
    room = SHARE * statistics(model).parameters / len(values)
    places: list[Exit] = []
    for number, value in enumerate((own[str(v.name)] for v in values), 1):
        head = _Head(graph, value, f"exit_{number}")
        scores = head.scores(classes, room)
        given = head.named("", activation, [scores], axis=1) if activation else scores
        confidence = given if activation == "Softmax" else head.named("/probabilities", "Softmax", [scores], axis=1)
        graph.outputs.extend(dict.fromkeys((given, confidence)))
        places.append(Exit(str(value.name), str(given.name), str(confidence.name), EXIT_STEPS))
    set_exits(graph, tuple(places))
    return result


class _Head:
    """Nodes behind a value, each behind the one before; all names start with `stem`."""

    def __init__(self, graph: ir.Graph, value: ir.Value, stem: str) -> None:
        self.graph, self.value, self.stem = graph, value, stem
        self.last = present(value.producer())
        self.taken = {str(v.name) for n in graph for v in n.outputs} | {str(v.name) for v in graph.inputs}
        while any(name.startswith(self.stem) for name in (*self.taken, *graph.initializers)):
            self.stem += "_"

    def scores(self, classes: int, room: float) -> ir.Value:
        features = self._pooled(room / classes)
        depth = shape(features)[1]
        ones, zeros = np.ones((1, depth), np.float32), np.zeros((1, depth), np.float32)
        scaled = self.named("/scaled", "Mul", [features, self.constant("scale", ones)])
        centred = self.named("/centred", "Add", [scaled, self.constant("shift", zeros)])
        weight, bias = np.zeros((classes, depth), np.float32), np.zeros(classes, np.float32)
        operands = [centred, self.constant("weight", weight), self.constant("bias", bias)]
        return self.named("/scores", "Gemm", operands, (1, classes), transB=1)

    def _pooled(self, most: float) -> ir.Value:
        """The value as [1, features], at most so many where its channels are not more."""
        value, size = self.value, shape(self.value)
        if len(size) == 2:
            return value
        if len(size) == 3:
            axis = 2 if _channel_axis(value) == 1 else 1
            mean = self.constant("axes", np.array([axis], np.int64))
            return self.named("/mean", "ReduceMean", [value, mean], (1, size[3 - axis]), keepdims=0)
        channels, image = size[1], size[2:]
        grid = next((g for g in GRIDS if channels * min(g, image[0]) * min(g, image[1]) <= most), GRIDS[-1])
        kernel = [-(-n // grid) for n in image]
        pooled = [(n - k) // k + 1 for n, k in zip(image, kernel)]
        if kernel != [1, 1]:
            window = {"kernel_shape": kernel, "strides": kernel, "dilations": [1, 1], "pads": [0, 0, 0, 0]}
            whole = {"ceil_mode": 0, "count_include_pad": 0}
            value = self.named("/pooled", "AveragePool", [value], (1, channels, *pooled), **window, **whole)
        flat = (1, channels * pooled[0] * pooled[1])
        form = self.constant("shape", np.array(flat, np.int64))
        return self.named("/features", "Reshape", [value, form], flat)

    def named(
        self, name: str, kind: str, inputs: Sequence[ir.Value], size: Sequence[int] = (), **attributes: int | list[int]
    ) -> ir.Value:
        """The output of a node behind all that are there; size: as its first input's where none is given."""
        output = ir.Value(
            name=f"{self.stem}{name}", shape=ir.Shape(size or shape(inputs[0])), type=ir.TensorType(ir.DataType.FLOAT)
        )
        node = ir.node(kind, inputs, attributes, outputs=[output], name=output.name)
        self.graph.insert_after(self.last, node)
        self.last = node
        return output

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        tensor = ir.tensor(array, name=f"{self.stem}/{name}")
        kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value = ir.Value(name=tensor.name, shape=ir.Shape(array.shape), type=kind, const_value=tensor)
        self.graph.register_initializer(value)
        return value


def _channel_axis(value: ir.Value) -> int:
    """The axis that channels lie along: that of the layer before."""
    node = value.producer()
    while node is not None and node.op_type not in LAYERS:
        computed = [v for v in node.inputs if v is not None and v.const_value is None]
        node = argument(node, 0).producer() if not computed else computed[0].producer()
    return LAYERS[node.op_type] if node is not None else 1
