"""Recognises Gelu and HardSwish that were written out in smaller operators, by what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument
from edgecompress.ingest.passes.edit import Edit, NodePass

# A polynomial in x and t: exponents (of x, of t) -> coefficient.
Polynomial = dict[tuple[int, int], float]
X: Polynomial = {(1, 0): 1.0}
T: Polynomial = {(0, 1): 1.0}
TOLERANCE = 1e-4  # exporters round sqrt(2 / pi) and 1 / sqrt(2) to as few as five digits
LARGEST_DEGREE = 4
DEEPEST = 8  # operators between x and the result


@dataclass(frozen=True)
class _Form:
    """result(x, t) with t = op_type(argument(x)) is the operator `becomes`."""

    op_type: str
    argument: Polynomial
    result: Polynomial
    becomes: str
    attributes: dict[str, str]


_S = math.sqrt(2 / math.pi)
FORMS = (
    # Hendrycks and Gimpel 2016: x * Phi(x) = 0.5 x (1 + erf(x / sqrt 2)), and its tanh approximation.
    _Form("Erf", {(1, 0): math.sqrt(0.5)}, {(1, 0): 0.5, (1, 1): 0.5}, "Gelu", {"approximate": "none"}),
    _Form("Tanh", {(1, 0): _S, (3, 0): _S * 0.044715}, {(1, 0): 0.5, (1, 1): 0.5}, "Gelu", {"approximate": "tanh"}),
    # Howard et al. 2019 (MobileNetV3): x * relu6(x + 3) / 6.
    _Form("Clip", {(1, 0): 1.0, (0, 0): 3.0}, {(1, 1): 1 / 6}, "HardSwish", {}),
    _Form("HardSigmoid", {(1, 0): 1.0}, {(1, 1): 1.0}, "HardSwish", {}),
)


class RecogniseActivations(NodePass):
    """For each Erf, Tanh, Clip(0, 6) and HardSigmoid(1/6, 1/2): when some value below it is, as a polynomial
    in the operator's result and in a value above it, one of FORMS, that value is computed by the named
    operator. Comparing polynomials takes care of the order of factors, of Div against Mul, Pow against Mul,
    and so on.
    """

    operators = frozenset(form.op_type for form in FORMS)

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        if not _has_expected_parameters(node):
            return False
        source, t = argument(node, 0), node.outputs[0]
        for form in FORMS:
            if form.op_type != node.op_type:
                continue
            for x in _above(source):
                if not _equal(_polynomial(source, {x: X}), form.argument):
                    continue
                for result in _below(t):
                    known, last = {x: X, t: T}, result.producer()
                    if last is not None and result.shape == x.shape and _equal(_polynomial(result, known), form.result):
                        edit.replace(last, form.becomes, [x], form.attributes)
                        return True
        return False


def _has_expected_parameters(node: ir.Node) -> bool:
    if node.op_type == "Clip":
        bounds = [b for v in node.inputs[1:3] if (b := constant(v)) is not None and b.size == 1]
        return [float(b.reshape(())) for b in bounds] == [0.0, 6.0]
    if node.op_type == "HardSigmoid":
        alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        return math.isclose(alpha, 1 / 6, rel_tol=TOLERANCE) and beta == 0.5
    return True


def _above(value: ir.Value) -> list[ir.Value]:
    """The value and those it is computed from, nearest first, through arithmetic alone."""
    found, frontier = [value], [value]
    for _ in range(DEEPEST):
        frontier = [
            v
            for known in frontier
            if (node := known.producer()) is not None and node.op_type in ARITHMETIC
            for v in node.inputs
            if v is not None and v.const_value is None and v not in found
        ]
        found += [v for i, v in enumerate(frontier) if v not in frontier[:i]]
    return found


def _below(value: ir.Value) -> list[ir.Value]:
    """The values computed from it, nearest first, through arithmetic alone."""
    found: list[ir.Value] = []
    frontier = [value]
    for _ in range(DEEPEST):
        frontier = [n.outputs[0] for v in frontier for n in v.consumers() if n.op_type in ARITHMETIC and n.domain == ""]
        found += [v for v in frontier if v not in found]
    return found


def _polynomial(value: ir.Value, known: dict[ir.Value, Polynomial], depth: int = 2 * DEEPEST) -> Polynomial | None:
    """The value as a polynomial in the known ones, or None when it isn't one."""
    if value in known:
        return known[value]
    array = constant(value)
    if array is not None:
        return {(0, 0): float(array.reshape(()))} if array.size == 1 else None
    node = value.producer()
    if node is None or depth == 0 or node.op_type not in ARITHMETIC or node.domain != "":
        return None
    terms = []
    for i in range(len(node.inputs)):
        term = _polynomial(argument(node, i), known, depth - 1)
        if term is None:
            return None
        terms.append(term)
    return ARITHMETIC[node.op_type](*terms)


def _add(a: Polynomial, b: Polynomial) -> Polynomial:
    return {k: a.get(k, 0.0) + b.get(k, 0.0) for k in a.keys() | b.keys()}


def _multiply(a: Polynomial, b: Polynomial) -> Polynomial | None:
    result: Polynomial = {}
    for (i, j), p in a.items():
        for (k, m), q in b.items():
            result[i + k, j + m] = result.get((i + k, j + m), 0.0) + p * q
    return result if all(max(k) <= LARGEST_DEGREE for k in result) else None


def _negate(a: Polynomial) -> Polynomial:
    return {k: -c for k, c in a.items()}


def _divide(a: Polynomial, b: Polynomial) -> Polynomial | None:
    divisor = b.get((0, 0), 0.0)
    return None if set(b) != {(0, 0)} or divisor == 0.0 else {k: c / divisor for k, c in a.items()}


def _power(a: Polynomial, b: Polynomial) -> Polynomial | None:
    exponent = b.get((0, 0), 0.0)
    if set(b) != {(0, 0)} or exponent not in (1.0, 2.0, 3.0):
        return None
    result: Polynomial | None = a
    for _ in range(int(exponent) - 1):
        result = None if result is None else _multiply(result, a)
    return result


ARITHMETIC: dict[str, Callable[..., Polynomial | None]] = {
    "Add": _add,
    "Sub": lambda a, b: _add(a, _negate(b)),
    "Mul": _multiply,
    "Div": _divide,
    "Neg": _negate,
    "Pow": _power,
    "Identity": lambda a: a,
}


def _equal(found: Polynomial | None, wanted: Polynomial) -> bool:
    if found is None:
        return False
    terms = {k: c for k, c in found.items() if abs(c) > 1e-7}
    return terms.keys() == wanted.keys() and all(
        math.isclose(c, wanted[k], rel_tol=TOLERANCE) for k, c in terms.items()
    )
