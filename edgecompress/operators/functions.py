"""Functions of one variable that TFLite has no int8 kernel for: tables on int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecompress.graph.nodes import argument, number
from edgecompress.lowering.parts import Parts, Rule
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


def _shrink(node: ir.Node, x: np.ndarray) -> np.ndarray:
    limit, bias = number(node, "lambd", 0.5), number(node, "bias", 0.0)
    return np.where(x < -limit, x + bias, np.where(x > limit, x - bias, 0))


def _shrink_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, limit, bias = argument(node, 0), number(node, "lambd", 0.5), number(node, "bias", 0.0)
    above = op.Where(op.Greater(x, limit), op.Sub(x, bias), 0.0)
    return [op.Where(op.Less(x, -limit), op.Add(x, bias), above)]


# ---- rounding ----


def _ceil_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [op.Neg(op.Floor(op.Neg(argument(node, 0))))]


def _round_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Halves go to the even neighbour."""
    x = argument(node, 0)
    below = op.Floor(x)
    rest = op.Sub(x, below)
    even = op.Mul(op.Floor(op.Mul(op.Add(below, 1.0), 0.5)), 2.0)
    return [op.Where(op.Less(rest, 0.5), below, op.Where(op.Greater(rest, 0.5), op.Add(below, 1.0), even))]


def _sign_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x = argument(node, 0)
    dtype = x.dtype or ir.DataType.FLOAT
    zero = np.zeros((), dtype.numpy())
    above, below = op.Greater(x, zero), op.Less(x, zero)
    return [op.Sub(op.Cast(above, to=int(dtype)), op.Cast(below, to=int(dtype)))]


# ---- of angles ----

# minimax polynomial of (atan(x) - x) / x^3 in x^2 for |x| <= tan(pi / 8); S. Moshier, Cephes, atanf.c
ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
TAN_PI_8, TAN_3_PI_8 = 0.4142135623730950, 2.414213562373095


def _atan(op: Parts, x: ir.Value) -> ir.Value:
    """atan(x) = pi/2 - atan(1/x) = pi/4 + atan((x - 1) / (x + 1)) bring |x| to tan(pi / 8) at most."""
    size = op.Abs(x)
    large, middle = op.Greater(size, TAN_3_PI_8), op.Greater(size, TAN_PI_8)
    between = op.Div(op.Sub(size, 1.0), op.Add(size, 1.0))
    near = op.Where(large, op.Div(-1.0, op.Max(size, TAN_3_PI_8)), op.Where(middle, between, size))
    start = op.Where(large, np.pi / 2, op.Where(middle, np.pi / 4, 0.0))
    square = op.Mul(near, near)
    poly = op.Mul(square, ATAN[0])
    for coefficient in ATAN[1:-1]:
        poly = op.Mul(op.Add(poly, coefficient), square)
    poly = op.Mul(op.Add(poly, ATAN[-1]), square)
    positive = op.Add(op.Add(op.Mul(poly, near), near), start)
    return op.Where(op.Less(x, 0.0), op.Neg(positive), positive)


def _asin(op: Parts, x: ir.Value) -> ir.Value:
    """2 atan(x / (1 + sqrt(1 - x^2)))"""
    root = op.Sqrt(op.Mul(op.Sub(1.0, x), op.Add(x, 1.0)))
    return op.Mul(_atan(op, op.Div(x, op.Add(root, 1.0))), 2.0)


def _atan_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [_atan(op, argument(node, 0))]


def _asin_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [_asin(op, argument(node, 0))]


def _acos_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [op.Sub(np.pi / 2, _asin(op, argument(node, 0)))]


def _tan_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x = argument(node, 0)
    return [op.Div(op.Sin(x), op.Cos(x))]


# ---- hyperbolic ----

LOG_2 = float(np.log(2))


def _halves(op: Parts, node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """e^x / 2 and e^-x / 2, as e^(x - log 2), which overflows no earlier than the result."""
    x = argument(node, 0)
    return op.Exp(op.Sub(x, LOG_2)), op.Exp(op.Sub(op.Neg(x), LOG_2))


def _sinh_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [op.Sub(*_halves(op, node))]


def _cosh_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return [op.Add(*_halves(op, node))]


def _asinh_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """log(|x| + sqrt(x^2 + 1)), with the sign of x"""
    x = argument(node, 0)
    size = op.Abs(x)
    positive = op.Log(op.Add(size, op.Sqrt(op.Add(op.Mul(x, x), 1.0))))
    return [op.Where(op.Less(x, 0.0), op.Neg(positive), positive)]


def _acosh_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """log(x + sqrt(x - 1) sqrt(x + 1)), which overflows no earlier than x"""
    x = argument(node, 0)
    return [op.Log(op.Add(x, op.Mul(op.Sqrt(op.Sub(x, 1.0)), op.Sqrt(op.Add(x, 1.0)))))]


def _atanh_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """log((1 + x) / (1 - x)) / 2"""
    x = argument(node, 0)
    return [op.Mul(op.Log(op.Div(op.Add(x, 1.0), op.Sub(1.0, x))), 0.5)]


def _of_one_value(
    name: str, compute: Callable[[np.ndarray], np.ndarray], parts: Rule, *, rises: bool = False, nodes: str = ""
) -> Operator:
    """TFLite has no operator for it. nodes: an example, where x may not be any number; it may use c = 0.9 and d = 8."""
    constants = {name: np.float32(v) for name, v in {"c": 0.9, "d": 8}.items() if f" {name})" in nodes}
    given = {"examples": (Example(nodes, constants=constants),)} if nodes else {}
    return function(
        name,
        parts=parts,
        torch=plain(name.lower()),
        function=Function(lambda node, x: compute(x), rises=rises),
        **given,
    )


def _with_float_kernel(name: str, compute: np.ufunc, kind: str, **fields: Any) -> Operator:
    """TFLite has it in float alone, and the runtime does not have it."""
    return function(
        name,
        torch=plain(name.lower()),
        integer=TABLE_WHERE_NEEDED,
        tflite=unary(kind),
        function=Function(lambda node, x: compute(x)),
        **fields,
    )


WITHIN_ONE = "t = Tanh(x) h = Mul(t, c) y = {}(h)"
MANY_STEPS = "h = Mul(x, d) y = {}(h)"  # so that one step is small beside the range


register(
    _of_one_value("Acos", np.arccos, _acos_parts, nodes=WITHIN_ONE.format("Acos")),
    _of_one_value("Acosh", np.arccosh, _acosh_parts, nodes="e = Exp(x) f = Add(e, c) g = Add(f, c) y = Acosh(g)"),
    _of_one_value("Asin", np.arcsin, _asin_parts, nodes=WITHIN_ONE.format("Asin")),
    _of_one_value("Asinh", np.arcsinh, _asinh_parts, rises=True),
    _of_one_value("Atan", np.arctan, _atan_parts, rises=True),
    _of_one_value("Atanh", np.arctanh, _atanh_parts, nodes=WITHIN_ONE.format("Atanh")),
    _of_one_value("Ceil", np.ceil, _ceil_parts, rises=True, nodes=MANY_STEPS.format("Ceil")),
    function(
        "Celu",
        examples=(Example("y = Celu(x)"), Example("y = Celu<alpha=0.5>(x)")),
        parts=_celu_parts,
        function=Function(_celu, rises=True),
    ),
    _with_float_kernel("Cos", np.cos, "COS"),
    _of_one_value("Cosh", np.cosh, _cosh_parts),
    _with_float_kernel(
        "Floor", np.floor, "FLOOR", examples=(Example(MANY_STEPS.format("Floor"), constants={"d": np.float32(8)}),)
    ),
    function("Mish", parts=_mish_parts, function=Function(_mish)),
    _of_one_value("Round", np.round, _round_parts, rises=True, nodes=MANY_STEPS.format("Round")),
    function(
        "Selu",
        examples=(Example("y = Selu(x)"), Example("y = Selu<alpha=1.0, gamma=2.0>(x)")),
        parts=_selu_parts,
        function=Function(_selu, rises=True),
    ),
    function(
        "Shrink",
        examples=(Example("y = Shrink(x)"), Example("y = Shrink<lambd=0.2, bias=0.1>(x)")),
        parts=_shrink_parts,
        function=Function(_shrink),
    ),
    _of_one_value("Sign", np.sign, _sign_parts, rises=True),
    _with_float_kernel("Sin", np.sin, "SIN"),
    _of_one_value("Sinh", np.sinh, _sinh_parts, rises=True),
    _of_one_value("Tan", np.tan, _tan_parts, nodes=WITHIN_ONE.format("Tan")),
    function(
        "ThresholdedRelu",
        examples=(Example("y = ThresholdedRelu<alpha=0.5>(x)"),),
        parts=_thresholded_parts,
        function=Function(_thresholded, rises=True),
    ),
)
