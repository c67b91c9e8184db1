"""Functions of one variable that TFLite has no int8 kernel for: tables on int8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.graph.nodes import argument, number
from edgecompress.lowering.parts import Parts
from edgecompress.operators.elementwise import function, plain, unary
from edgecompress.operators.example import Example
from edgecompress.operators.record import TABLE_WHERE_NEEDED, Function, Operator, register

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


def _exponential(x: np.ndarray, alpha: float) -> np.ndarray:
    """alpha (e^x - 1) below zero, x above."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _selu(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return number(node, "gamma", SELU_GAMMA) * _exponential(x, number(node, "alpha", SELU_ALPHA))


def _selu_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, alpha = argument(node, 0), number(node, "alpha", SELU_ALPHA)
    below = op.Mul(op.Elu(op.Min(x, 0.0)), alpha)
    return [op.Mul(op.Add(op.Relu(x), below), number(node, "gamma", SELU_GAMMA))]


def _celu(node: ir.Node, x: np.ndarray) -> np.ndarray:
    alpha = number(node, "alpha", 1.0)
    return alpha * _exponential(x / alpha, 1.0)


def _celu_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """max(x, 0) + alpha (e^(min(x, 0) / alpha) - 1)"""
    x, alpha = argument(node, 0), number(node, "alpha", 1.0)
    return [op.Add(op.Relu(x), op.Mul(op.Elu(op.Mul(op.Min(x, 0.0), 1 / alpha)), alpha))]


def _mish(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(x, 0))


def _mish_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x = argument(node, 0)
    return [op.Mul(x, op.Tanh(op.Softplus(x)))]


def _thresholded(node: ir.Node, x: np.ndarray) -> np.ndarray:
    return np.where(x > number(node, "alpha", 1.0), x, 0)


def _thresholded_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x = argument(node, 0)
    return [op.Where(op.Greater(x, number(node, "alpha", 1.0)), x, 0.0)]


def _with_float_kernel(name: str, compute: np.ufunc, kind: str) -> Operator:
    """TFLite has it in float alone, and the runtime does not have it."""
    return function(
        name,
        torch=plain(name.lower()),
        integer=TABLE_WHERE_NEEDED,
        tflite=unary(kind),
        function=Function(lambda node, x: compute(x)),
    )


register(
    function(
        "Celu",
        examples=(Example("y = Celu(x)"), Example("y = Celu<alpha=0.5>(x)")),
        parts=_celu_parts,
        function=Function(_celu, rises=True),
    ),
    _with_float_kernel("Cos", np.cos, "COS"),
    function("Mish", parts=_mish_parts, function=Function(_mish)),
    function(
        "Selu",
        examples=(Example("y = Selu(x)"), Example("y = Selu<alpha=1.0, gamma=2.0>(x)")),
        parts=_selu_parts,
        function=Function(_selu, rises=True),
    ),
    _with_float_kernel("Sin", np.sin, "SIN"),
    function(
        "ThresholdedRelu",
        examples=(Example("y = ThresholdedRelu<alpha=0.5>(x)"),),
        parts=_thresholded_parts,
        function=Function(_thresholded, rises=True),
    ),
)
