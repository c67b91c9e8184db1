"""Unlike quantities in one output, such as boxes in pixels and scores from 0 to 1, keep scales of their own.

One int8 tensor has one scale, and the widest quantity decides it. The operators that join the quantities at the end of
a graph therefore compute on float: each part is dequantized with its own scale. Where outputs are int8, an emitter
leaves them out (`graph/joined_outputs.py`), and the file has the parts as outputs.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.compress.quantize import operators
from edgecompress.compress.quantize.precision import Histograms
from edgecompress.graph.fusion import Layer, constant, layers

UNLIKE = 8.0  # ratio of two magnitudes above which 8 bits for the larger leave too few for the smaller


def unlike_joins(graph: ir.Graph, histograms: Histograms) -> set[ir.Node]:
    """The Concats of unlike quantities that only move on to outputs of the graph, and what moves them on.

    histograms: by name, of the values that were calibrated.
    """
    tail = _tail(graph)
    joins: set[ir.Node] = set()
    for layer in layers(graph):
        if layer.node not in tail:
            continue
        data = [v for _, v in operators.data_inputs(layer)]
        if any(v.producer() in joins for v in data) or (len(data) > 1 and _are_unlike(data, histograms)):
            joins.add(layer.node)
    return joins


def _tail(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that move numbers, and nothing but numbers, to outputs of the graph alone."""
    tail: set[ir.Node] = set()
    for layer in reversed(layers(graph)):
        values = layer.last.outputs
        ends = all(node in tail for v in values for node, _ in v.uses()) and any(
            v.uses() or v.is_graph_output() for v in values
        )
        if ends and _moves(layer):
            tail.add(layer.node)
    return tail


def _moves(layer: Layer) -> bool:
    rule = operators.rule(layer)
    return rule is not None and rule.passive and operators.ties(layer)


def _are_unlike(values: list[ir.Value], histograms: Histograms) -> bool:
    magnitudes = [m for v in values if (m := _magnitude(v, histograms))]
    return len(magnitudes) > 1 and max(magnitudes) > UNLIKE * min(magnitudes)


def _magnitude(value: ir.Value, histograms: Histograms) -> float:
    """The largest magnitude; 0 where nothing is known of it."""
    array = constant(value)
    if array is not None:
        return float(np.abs(array).max(initial=0.0))
    histogram = histograms.get(str(value.name))
    return 0.0 if histogram is None or not histogram.total else max(-histogram.minimum, histogram.maximum)
