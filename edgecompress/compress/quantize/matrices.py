"""Every layer with weights as a matrix product: outputs = inputs @ matrix.T, for each group of channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.operators import record_of
from edgecompress.operators.record import View


def _view(node: ir.Node) -> View:
    view = record_of(node).weights.view
    if view is None:
        raise ValueError(f"{node.op_type} {node.name!r} does not multiply by a weight")
    return view


def to_matrix(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """Weight as the operator takes it -> [output channels, inputs of one output]."""
    return _view(node).matrix(node, weight)


def from_matrix(node: ir.Node, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse: [output channels, inputs of one output] -> weight [shape], of the matrix's dtype."""
    places = to_matrix(node, np.arange(matrix.size).reshape(shape))
    weight = np.empty(matrix.size, matrix.dtype)
    weight[places.ravel()] = matrix.ravel()
    return weight.reshape(shape)


def rows(
    node: ir.Node, x: np.ndarray, y: np.ndarray, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A layer's input x [n, ...] and output y [n, ...] as rows of its matrix product.

    Returns inputs [groups, m, inputs of one output] and outputs [m, output channels], m <= `most`: all
    positions of all samples, or that many drawn at random.
    """
    view = _view(node)
    outputs = y if view.channels_last else np.moveaxis(y, 1, -1)
    inputs, where = _some_rows(view.windows(node, x), outputs.shape[:-1], most, rng)
    return inputs, outputs[where]


def input_rows(node: ir.Node, x: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """A layer's input x [n, ...] alone as rows [groups, m, inputs of one output], as `rows` has them."""
    output = node.outputs[0]
    assert output.shape is not None  # canonical
    windows = _view(node).windows(node, x)
    return _some_rows(windows, windows.shape[: len(output.shape) - 1], most, rng)[0]


def _some_rows(
    windows: np.ndarray, positions: tuple[int, ...], most: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(rows [groups, m, inputs of one output], their places) of windows [positions..., groups, parts of inputs...]."""
    count = int(np.prod(positions))
    chosen = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
    where = np.unravel_index(chosen, positions)
    inputs = windows[where]
    return inputs.reshape(*inputs.shape[:2], -1).swapaxes(0, 1), where
