"""Discrete Fourier transforms of a known length: products with a matrix of sines and cosines."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.nodes import argument, integer, optional_parameter, parameter
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import all_of, constant_inputs
from edgecompress.operators.example import Example
from edgecompress.operators.record import Operator, register

LARGEST_MATRIX = 2**24  # elements: 64 MiB


def _matrix(given: int, length: int, parts: int, *, is_inverse: bool, is_one_sided: bool) -> np.ndarray:
    """[given, parts (real, imaginary), results, parts of a result]: the transform of the first `length` of `given`
    numbers, with zeros where there are fewer. One-sided, the real transform has length // 2 + 1 results, and the
    inverse one takes as many, whose others are their conjugates, and gives real numbers.
    """
    is_real_result = is_inverse and is_one_sided
    results = length // 2 + 1 if is_one_sided and not is_inverse else length
    angle = (1 if is_inverse else -1) * 2 * np.pi * np.outer(np.arange(given), np.arange(results)) / length
    wave = np.exp(1j * angle) / (length if is_inverse else 1)
    used = length // 2 + 1 if is_real_result else length
    wave[used:] = 0
    if is_real_result:  # numbers in the middle stand for their conjugates as well
        wave[1 : (length + 1) // 2] *= 2
    matrix = np.stack([np.stack([wave.real, wave.imag], -1), np.stack([-wave.imag, wave.real], -1)], 1)
    return matrix[:, :parts, :, : 1 if is_real_result else 2].astype(np.float32)


def _axis(node: ir.Node) -> int:
    """An attribute before opset 20, an input since."""
    rank, given = len(shape(argument(node, 0))), optional_parameter(node, 2)
    return (integer(node, "axis", -2) if given is None else int(given.reshape(()))) % rank


def _length(node: ir.Node) -> int:
    given = optional_parameter(node, 1)
    if given is not None:
        return int(given.reshape(()))
    count = shape(argument(node, 0))[_axis(node)]
    return 2 * (count - 1) if integer(node, "inverse") and integer(node, "onesided") else count


def _transform_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, axis, length = argument(node, 0), _axis(node), _length(node)
    dims = shape(x)
    rank = len(dims)
    kinds = {"is_inverse": bool(integer(node, "inverse")), "is_one_sided": bool(integer(node, "onesided"))}
    matrix = _matrix(dims[axis], length, dims[-1], **kinds)
    others = [a for a in range(rank - 1) if a != axis]
    rows = op.Transpose(x, perm=[*others, axis, rank - 1])
    rows = op.Reshape(rows, [prod(dims[a] for a in others), dims[axis] * dims[-1]])
    y = op.MatMul(rows, matrix.reshape(dims[axis] * dims[-1], -1))
    y = op.Reshape(y, [*(dims[a] for a in others), *matrix.shape[2:]])
    order = [*others, axis, rank - 1]
    return [op.Transpose(y, perm=[order.index(a) for a in range(rank)])]


def _short_time_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """A convolution over the signal, whose kernels are the windowed waves."""
    x, step, window = argument(node, 0), int(parameter(node, 1).reshape(())), optional_parameter(node, 2)
    count, samples, parts = (*shape(x), 1)[:3]
    length = _frame(node)
    matrix = _matrix(length, length, parts, is_inverse=False, is_one_sided=bool(integer(node, "onesided", 1)))
    if window is not None:
        matrix = matrix * window.astype(np.float32).reshape(-1, 1, 1, 1)
    results = matrix.shape[2]
    kernels = matrix.transpose(2, 3, 1, 0).reshape(results * 2, parts, length)
    signal = op.Transpose(op.Reshape(x, [count, samples, parts]), perm=[0, 2, 1])
    y = op.Conv(
        signal, kernels, np.zeros(results * 2, np.float32), kernel_shape=[length], strides=[step], dilations=[1],
        pads=[0, 0], group=1,
    )  # fmt: skip
    frames = (samples - length) // step + 1
    return [op.Reshape(op.Transpose(y, perm=[0, 2, 1]), [count, frames, results, 2])]


def _frame(node: ir.Node) -> int:
    given, window = optional_parameter(node, 3), optional_parameter(node, 2)
    if given is not None:
        return int(given.reshape(()))
    assert window is not None, "the standard asks for one of the two"
    return len(window)


def _accepts_length(node: ir.Node) -> str | None:
    dims = shape(argument(node, 0))
    elements = 4 * dims[_axis(node)] * _length(node) if node.op_type == "DFT" else 4 * _frame(node) ** 2
    return None if elements <= LARGEST_MATRIX else f"operator {node.op_type} of a length whose matrix is too large"


WINDOW = {"s": np.array(4), "w": np.hanning(8).astype(np.float32)}

register(
    Operator(
        "DFT",
        examples=(
            Example("y = DFT(x, n, a)", {"x": (2, 8, 3, 2)}, constants={"n": np.array(6), "a": np.array(1)}),
            Example("y = DFT<onesided=1>(x)", {"x": (2, 7, 1)}),
            Example("y = DFT<onesided=1, inverse=1>(x)", {"x": (1, 5, 2)}),
        ),
        accepts=all_of(constant_inputs(1, 2), _accepts_length),
        parts=_transform_parts,
    ),
    Operator(
        "STFT",
        examples=(
            Example("y = STFT(x, s, w)", {"x": (1, 32, 1)}, constants=WINDOW),
            Example(
                "y = STFT<onesided=0>(x, s, , n)", {"x": (2, 20, 1)}, constants={"s": np.array(3), "n": np.array(6)}
            ),
        ),
        accepts=all_of(constant_inputs(1, 2, 3), _accepts_length),
        parts=_short_time_parts,
    ),
)
