"""Attention scores and their masks: what vanishes in a Softmax takes no part of a scale.

A mask adds -10,000 or float32's minimum to the scores that count for nothing. With that in the range of the sum, 8 bits
would leave the scores themselves a step or two. Behind the Softmax nothing is seen that is DEPTH below the largest
score of its row, so ranges end there, and everything below saturates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize.histogram import Histogram
from edgecompress.compress.quantize.operators import RULES
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument, arguments

DEPTH = 10.0  # exp(-10) is far below the 1/256 that an int8 Softmax resolves
MASKED = -1e4  # masks end here; a row whose largest score is below a tenth of it is masked as a whole
CARRIERS = {"Mul", "Where"}  # what makes a mask of a constant and an input


def scores(graph: ir.Graph) -> dict[ir.Value, int]:
    """The values that a Softmax inside the graph, and nothing else, reads: its axis, counted from the end.

    A Softmax at the end of the graph is left out: the order of its scores counts even where they are small.
    """
    found: dict[ir.Value, int] = {}
    for node in graph:
        if node.op_type != "Softmax" or node.outputs[0].is_graph_output() or not node.outputs[0].uses():
            continue
        value = argument(node, 0)
        if len(value.uses()) == 1 and not value.is_graph_output() and value.shape is not None:
            axis, rank = node.attributes.get_int("axis", -1), len(value.shape)
            found[value] = axis if axis < 0 else axis - rank
    return found


def with_masked(graph: ir.Graph) -> set[str]:
    """The names of scores, and of the operands of their sums: what is below their ranges vanishes in a Softmax."""
    found = {str(value.name) for value in scores(graph)}
    for value in scores(graph):
        if (node := value.producer()) is not None and node.op_type == "Add":
            makers = [m for operand in arguments(node) if (m := _computed_by(operand)) is not None]
            found.update(str(v.name) for v in [*arguments(node), *(o for m in makers for o in m.outputs)])
    return found


def that_counts(array: np.ndarray, axis: int) -> np.ndarray:
    """Scores no lower than DEPTH below the largest of their row along the axis; without rows that are all masked."""
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    largest = rows.max(axis=1, keepdims=True, initial=-np.inf)
    seen = largest[:, 0] > MASKED / 10
    return np.maximum(rows, largest - DEPTH)[seen]


def bounded(model: ir.Model) -> ir.Model:
    """The model with masks no lower than MASKED, which is as good as minus infinity; a clone if any was lower."""
    if not _low_constants(model.graph):
        return model
    clone = model.clone()
    for node, index, array in _low_constants(clone.graph):
        name = f"{node.inputs[index].name}/bounded/{node.outputs[0].name}"  # type: ignore[union-attr]
        value = ir.Value(name=name, const_value=ir.tensor(np.maximum(array, np.float32(MASKED)), name=name))
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
        clone.graph.register_initializer(value)
        node.replace_input_with(index, value)
    return clone


def _low_constants(graph: ir.Graph) -> list[tuple[ir.Node, int, np.ndarray]]:
    """(node, position, array) of the constants below MASKED that masks are made of."""
    nodes = [n for value in scores(graph) if (n := value.producer()) is not None and n.op_type in {"Add", "Where"}]
    carriers = [p for n in nodes for v in arguments(n) if (p := _computed_by(v)) is not None and p.op_type in CARRIERS]
    places = [(node, i) for node in dict.fromkeys([*nodes, *carriers]) for i in range(len(node.inputs))]
    low = [(node, i, constant(node.inputs[i])) for node, i in places]
    return [(n, i, a) for n, i, a in low if a is not None and a.dtype == np.float32 and a.min(initial=0.0) < MASKED]


def _computed_by(value: ir.Value) -> ir.Node | None:
    """The node that computes the numbers which are only moved to make the value."""
    node = value.producer()
    while node is not None and node.op_type in RULES and RULES[node.op_type].passive and node.op_type not in CARRIERS:
        node = argument(node, 0).producer()
    return node


def floors(graph: ir.Graph, histograms: Mapping[str, Histogram]) -> dict[ir.Value, float]:
    """How low the range of each operand of a sum of scores has to go: with it, the largest other one vanishes."""
    needed: dict[ir.Value, dict[ir.Node, float]] = {}
    for value in scores(graph):
        node, total = value.producer(), histograms.get(str(value.name))
        if node is None or node.op_type != "Add" or total is None or not total.total:
            continue
        for own, other in (arguments(node), arguments(node)[::-1]):
            needed.setdefault(own, {})[node] = total.minimum - _largest(other, histograms)
    return {v: min(low.values()) for v, low in needed.items() if all(n in low for n in v.consumers())}


def _largest(value: ir.Value, histograms: Mapping[str, Histogram]) -> float:
    array = constant(value)
    if array is not None:
        return float(array.max(initial=0.0))
    histogram = histograms.get(str(value.name))
    return 0.0 if histogram is None or not histogram.total else histogram.maximum
