"""Which constants of a canonical model are its weights: what training may change."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import is_trained
from edgecompress.graph.fusion import constant
from edgecompress.operators import record_of

LARGEST = 1e6  # of a weight; attention masks hold -infinity, or the lowest float, in places
EXACT = 1e-3  # error of a formula that a table of positions follows, relative to its largest value
FEWEST = 3  # values along an axis, of which a formula can be seen


def trainable(model: ir.Model) -> list[ir.Value]:
    """The float32 initializers that the model has learned, each once, in graph order.

    What a layer multiplies with, its bias, and the scales and shifts of normalisations are weights by their operator's
    record. A constant that is added, multiplied or put beside other values is one by its place: behind a layer and in
    front of another (a scale of channels, learned positions, a class token), or the bias of a product. In front of all
    layers it prepares the input (mean and deviation), and behind all of them it is a unit or a grid of anchors. Masks,
    tables that follow a formula (sinusoids, grids, slopes), scalars, parameters of operators, statistics of
    BatchNormalization and what several nodes read belong to the model's formula. What [train] says of a constant or a
    node decides before all of this.
    """
    graph = model.graph
    found: dict[ir.Value, None] = {}
    places = _Places(graph)
    for node in graph:
        weights = record_of(node).weights
        for i, value in enumerate(node.inputs):
            array = constant(value)
            if value is None or array is None or array.dtype != np.float32:
                continue
            said = is_trained(node, value)
            if said is None:
                possible = np.abs(array).max(initial=0.0) <= LARGEST and array.size >= weights.least
                placed = weights.by_place and places.is_learned(node, value, array)
                said = possible and (placed or i in weights.learned)
            if said:
                found[value] = None
    return list(found)


class _Places:
    """Where each node stands among the layers, which are the nodes whose records say what they have learned."""

    def __init__(self, graph: ir.Graph) -> None:
        nodes = list(graph)
        self._behind: set[ir.Value] = set()  # values that a layer has a part in
        for node in nodes:
            if _is_layer(node) or any(v in self._behind for v in node.inputs):
                self._behind.update(node.outputs)
        self._before: set[ir.Value] = set()  # values that a layer is computed from
        for node in reversed(nodes):
            if _is_layer(node) or any(v in self._before for v in node.outputs):
                self._before.update(v for v in node.inputs if v is not None)

    def is_learned(self, node: ir.Node, value: ir.Value, array: np.ndarray) -> bool:
        """Whether a constant that the node adds, multiplies with or puts beside others is a weight."""
        if len(value.uses()) > 1 or not any(v in self._behind for v in node.inputs if v is not value):
            return False
        if _is_bias(node, array):
            return True
        if not any(v in self._before for v in node.outputs):
            return False
        return not (_is_mask(node, array) or _is_table(array))


def _is_layer(node: ir.Node) -> bool:
    weights = record_of(node).weights
    if weights.by_place or not weights.learned:
        return False
    arrays = [constant(v) for i, v in enumerate(node.inputs) if i in weights.learned]
    return any(a is not None and a.dtype == np.float32 and a.size >= weights.least for a in arrays)


def _is_bias(node: ir.Node, array: np.ndarray) -> bool:
    """Whether it is added to the channels of a product, which has no bias of its own."""
    if node.op_type != "Add" or sum(n > 1 for n in array.shape) > 1:
        return False
    makers = [v.producer() for v in node.inputs if v is not None]
    return any(n is not None and n.op_type == "MatMul" and _is_layer(n) for n in makers)


def _is_mask(node: ir.Node, array: np.ndarray) -> bool:
    """Whether it lets values through or not: two values, one of them 0 (or -infinity); or nothing but padding."""
    values = np.unique(array)
    if len(values) == 1:
        several_axes = sum(n > 1 for n in array.shape) > 1
        return node.op_type == "Concat" or (several_axes and values[0] in (0.0, 1.0))
    return len(values) == 2 and bool((values == 0).any())


def _is_table(array: np.ndarray) -> bool:
    """Whether positions along an axis follow a formula: they rise evenly, or are sines and cosines."""
    array = array.astype(np.float64)
    return _is_slope(array) or any(_is_even(array, axis) or _is_sinusoid(array, axis) for axis in range(array.ndim))


def _is_even(array: np.ndarray, axis: int) -> bool:
    """Coordinates: equal steps along the axis."""
    if array.shape[axis] <= FEWEST:
        return False
    steps = np.diff(array, axis=axis)
    largest = np.abs(steps).max()
    return bool(largest > 0 and np.abs(np.diff(steps, axis=axis)).max() <= EXACT * largest)


def _is_slope(array: np.ndarray) -> bool:
    """A slope over the distance of two positions (Press et al. 2021, Train Short, Test Long): the same along diagonals,
    and even from the first position on."""
    if array.ndim < 2 or not FEWEST < array.shape[-1] == array.shape[-2]:
        return False
    same = np.array_equal(array[..., 1:, 1:], array[..., :-1, :-1])
    return same and _is_even(array[..., 0, :], array.ndim - 2)


def _is_sinusoid(array: np.ndarray, axis: int) -> bool:
    """Vaswani et al. 2017, Attention Is All You Need, section 3.5, and rotations (Su et al. 2021, RoFormer): the angles
    of position 2 are twice those of position 1, and those of position 0 are 0.
    """
    if array.shape[axis] < FEWEST or np.abs(array).max() > 1 + EXACT:
        return False
    first, once, twice = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)[:FEWEST]
    is_sine, is_cosine = np.abs(first) <= EXACT, np.abs(first - 1) <= EXACT
    sine = np.abs(np.abs(twice) - 2 * np.abs(once) * np.sqrt(np.clip(1 - once**2, 0, 1))) <= EXACT
    cosine = np.abs(twice - (2 * once**2 - 1)) <= EXACT
    varies = bool(np.ptp(array, axis=axis).max() > 0)
    return varies and bool(((is_sine & sine) | (is_cosine & cosine)).all())
