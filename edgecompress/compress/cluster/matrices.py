"""Every layer with weights as a matrix product: outputs = inputs @ matrix.T, for each group of channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

Window = tuple[list[int], list[int], list[int], list[int]]


@dataclass(frozen=True)
class View:
    """How one operator is a matrix product.

    matrix: (node, weight) -> [output channels, inputs of one output], the channels of a group together.
    windows: (node, x [n, ...]) -> view [n, positions..., groups, parts of the inputs of one output...].
    channels_last: whether the output's channels are its last axis, else they are axis 1.
    """

    matrix: Callable[[ir.Node, np.ndarray], np.ndarray]
    windows: Callable[[ir.Node, np.ndarray], np.ndarray]
    channels_last: bool


def groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def to_matrix(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """Weight as the operator takes it -> [output channels, inputs of one output]."""
    return VIEWS[node.op_type].matrix(node, weight)


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
    view = VIEWS[node.op_type]
    outputs = y if view.channels_last else np.moveaxis(y, 1, -1)
    positions = outputs.shape[:-1]
    count = int(np.prod(positions))
    chosen = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
    where = np.unravel_index(chosen, positions)
    inputs = view.windows(node, x)[where]
    return inputs.reshape(*inputs.shape[:2], -1).swapaxes(0, 1), outputs[where]


def _conv_matrix(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1)


def _conv_windows(node: ir.Node, x: np.ndarray) -> np.ndarray:
    kernel, strides, dilations, pads = _window(node)
    return _windows(node, x, kernel, strides, dilations, pads)


def _transpose_matrix(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """[in, out / group, kernel...]: as the equal Conv's, with the kernel turned round."""
    spatial = tuple(range(3, weight.ndim + 1))
    grouped = weight.reshape(groups(node), -1, *weight.shape[1:])
    turned = np.flip(grouped.swapaxes(1, 2), spatial)
    return turned.reshape(turned.shape[0] * turned.shape[1], -1)


def _transpose_windows(node: ir.Node, x: np.ndarray) -> np.ndarray:
    """ConvTranspose is a Conv of stride 1 over its input with zeros put between the elements."""
    kernel, strides, dilations, pads = _window(node)
    rank = len(kernel)
    spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], strides))), x.dtype)
    spread[(..., *(slice(None, None, s) for s in strides))] = x
    extra = list(node.attributes.get_ints("output_padding", [0] * rank))
    reach = [d * (k - 1) for k, d in zip(kernel, dilations)]
    around = [r - p + e for r, p, e in zip(reach + reach, pads, [0] * rank + extra)]
    return _windows(node, spread, kernel, [1] * rank, dilations, around)


def _windows(
    node: ir.Node, x: np.ndarray, kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]
) -> np.ndarray:
    """[n, channels, size...] -> [n, positions..., groups, channels / group, kernel...]; pads < 0 cut."""
    rank = len(kernel)
    ends = list(zip(pads[:rank], pads[rank:]))
    padded = np.pad(x, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in ends)])
    padded = padded[(..., *(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(padded.shape[2:], ends)))]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    seen = np.moveaxis(seen[(slice(None), slice(None), *steps)], 1, 1 + rank)
    return seen.reshape(*seen.shape[: 1 + rank], groups(node), -1, *kernel)


def _window(node: ir.Node) -> Window:
    """kernel, strides, dilations, pads (begins, then ends): explicit in a canonical model but for 1 and 0."""
    a = node.attributes
    kernel = list(a.get_ints("kernel_shape", ()))
    one = [1] * len(kernel)
    pads = list(a.get_ints("pads", 2 * [0] * len(kernel)))
    return kernel, list(a.get_ints("strides", one)), list(a.get_ints("dilations", one)), pads


def _columns(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    return weight.T


def _one_group(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return x[..., None, :]


VIEWS: dict[str, View] = {
    "Conv": View(_conv_matrix, _conv_windows, channels_last=False),
    "ConvTranspose": View(_transpose_matrix, _transpose_windows, channels_last=False),
    "Gemm": View(_conv_matrix, _one_group, channels_last=True),
    "MatMul": View(_columns, _one_group, channels_last=True),
}
