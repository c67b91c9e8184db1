"""Which constants of a canonical model are its weights: what training may change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.operators import record_of

LARGEST = 1e6  # of a weight; attention masks hold -infinity, or the lowest float, in places


def trainable(model: ir.Model) -> list[ir.Value]:
    """The float32 initializers that layers multiply or add with, each once, in graph order.

    Not among them: parameters of operators (bounds, sizes, exponents), initial states, BatchNorm's statistics,
    masks, and scalar factors and addends (a scale, an epsilon), which belong to the formula and not to what was
    learned.
    """
    found: dict[ir.Value, None] = {}
    for node in model.graph:
        for value in _weights(node):
            array = constant(value)
            if array is not None and array.dtype == np.float32 and np.abs(array).max(initial=0.0) <= LARGEST:
                found[value] = None
    return list(found)


def _weights(node: ir.Node) -> Iterator[ir.Value]:
    weights = record_of(node).weights
    for i, value in enumerate(node.inputs):
        if value is not None and (weights.learned is None or i in weights.learned):
            array = constant(value)
            if array is not None and array.size >= weights.least:
                yield value
