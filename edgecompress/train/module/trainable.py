"""Which constants of a canonical model are its weights: what training may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant

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
    positions, least = POSITIONS.get(node.op_type, (_none, 1))
    for i in positions(node):
        value = node.inputs[i] if i < len(node.inputs) else None
        if value is not None and (array := constant(value)) is not None and array.size >= least:
            yield value


def _at(*positions: int) -> Callable[[ir.Node], tuple[int, ...]]:
    return lambda node: positions


def _all(node: ir.Node) -> range:
    return range(len(node.inputs))


def _none(node: ir.Node) -> tuple[int, ...]:
    return ()


# operator -> (positions of its weights, least number of elements of one)
POSITIONS: dict[str, tuple[Callable[[ir.Node], range | tuple[int, ...]], int]] = {
    "Add": (_all, 2),
    "BatchNormalization": (_at(1, 2), 1),
    "Concat": (_all, 2),
    "Conv": (_at(1, 2), 1),
    "ConvTranspose": (_at(1, 2), 1),
    "Div": (_all, 2),
    "Expand": (_at(0), 2),
    "GRU": (_at(1, 2, 3), 1),
    "Gather": (_at(0), 2),
    "Gemm": (_at(1, 2), 1),
    "InstanceNormalization": (_at(1, 2), 1),
    "LSTM": (_at(1, 2, 3), 1),
    "LayerNormalization": (_at(1, 2), 1),
    "MatMul": (_all, 1),
    "Mul": (_all, 2),
    "PRelu": (_at(1), 1),
    "Sub": (_all, 2),
}
