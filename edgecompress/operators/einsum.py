"""Einsum of any number of values, written with Transpose, Reshape, ReduceSum, Mul and MatMul."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import arguments, text
from edgecompress.lowering.parts import Parts
from edgecompress.operators.example import Example
from edgecompress.operators.record import Operator, register

HIDDEN = "0123456789"  # labels of the axes that an ellipsis stands for, from the last one


@dataclass(frozen=True)
class Labelled:
    """A value with a label for each of its axes."""

    value: ir.Value | np.ndarray
    labels: str


def _equation(node: ir.Node) -> tuple[list[str], str]:
    """Labels of each operand and of the result; ellipses are labels of their own."""
    left, arrow, right = text(node, "equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    ranks = [len(shape(v)) for v in arguments(node)]
    counts = [rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(terms, ranks)]
    hidden = [HIDDEN[:count][::-1] for count in counts]
    operands = [term.replace("...", own) for term, own in zip(terms, hidden)]
    widest = max(hidden, key=len, default="")
    if not arrow:
        every = "".join(operands)
        right = "..." + "".join(sorted(c for c in set(every) - set(HIDDEN) if every.count(c) == 1))
    return operands, right.replace("...", widest)


def _accepts(node: ir.Node) -> str | None:
    """No label may stand twice in a term, and all that has it is of one size."""
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return "operator Einsum on integers"
    if any(v.shape is None or not v.shape.is_static() for v in arguments(node)):
        return "operator Einsum of unknown shapes"
    operands, result = _equation(node)
    sizes: dict[str, set[int]] = {}
    for term, value in zip(operands, arguments(node)):
        for label, size in zip(term, shape(value)):
            sizes.setdefault(label, set()).add(size)
    if any(len(set(term)) < len(term) for term in (*operands, result)) or not set(result) <= set(sizes):
        return "operator Einsum of a diagonal"
    if any(len(found) > 1 for found in sizes.values()):
        return "operator Einsum that repeats an operand"
    return None


class _Sizes(dict[str, int]):
    """Label -> size of its axes."""

    def of(self, labels: Iterable[str]) -> list[int]:
        return [self[label] for label in labels]


def _parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    terms, result = _equation(node)
    sizes = _Sizes()
    for term, value in zip(terms, arguments(node)):
        sizes.update(zip(term, shape(value)))
    operands = [Labelled(v if (a := constant(v)) is None else a, term) for term, v in zip(terms, arguments(node))]
    total = operands[0]
    for i, other in enumerate(operands[1:], 2):
        total = _product(op, total, other, set(result).union(*terms[i:]), sizes)
    total = _arranged(op, _summed(op, total, set(result)), result)
    if isinstance(total.value, ir.Value) and total.value.producer() in op.nodes:
        return [total.value]
    return [op.Identity(total.value)]


def _summed(op: Parts, x: Labelled, kept: set[str]) -> Labelled:
    """Without the axes that nobody needs any more."""
    gone = [i for i, label in enumerate(x.labels) if label not in kept]
    if not gone:
        return x
    labels = "".join(label for label in x.labels if label in kept)
    if isinstance(x.value, np.ndarray):
        return Labelled(x.value.sum(tuple(gone)), labels)
    return Labelled(op.ReduceSum(x.value, gone, keepdims=0), labels)


def _arranged(op: Parts, x: Labelled, labels: str) -> Labelled:
    """With its axes in another order."""
    order = [x.labels.index(label) for label in labels]
    if order == sorted(order):
        return x
    moved = x.value.transpose(order) if isinstance(x.value, np.ndarray) else op.Transpose(x.value, perm=order)
    return Labelled(moved, labels)


def _shaped(op: Parts, value: ir.Value | np.ndarray, dims: Sequence[int]) -> ir.Value | np.ndarray:
    return value.reshape(dims) if isinstance(value, np.ndarray) else op.Reshape(value, np.array(dims, np.int64))


def _product(op: Parts, a: Labelled, b: Labelled, kept: set[str], sizes: _Sizes) -> Labelled:
    """Of two operands, summed over the labels that only they have: a product of matrices, or of elements where nothing
    is summed."""
    a, b = _summed(op, a, kept | set(b.labels)), _summed(op, b, kept | set(a.labels))
    both = [label for label in a.labels if label in b.labels]
    batch, summed = "".join(c for c in both if c in kept), "".join(c for c in both if c not in kept)
    own, others = ("".join(c for c in x.labels if c not in both) for x in (a, b))
    left, right = _arranged(op, a, batch + own + summed).value, _arranged(op, b, batch + summed + others).value
    dims = sizes.of(batch)
    if not summed:
        left = _shaped(op, left, [*dims, *sizes.of(own), *[1] * len(others)])
        right = _shaped(op, right, [*dims, *[1] * len(own), *sizes.of(others)])
        return Labelled(op.Mul(left, right), batch + own + others)
    rows, inner, columns = (int(np.prod(sizes.of(labels))) for labels in (own, summed, others))
    left, right = _shaped(op, left, [*dims, rows, inner]), _shaped(op, right, [*dims, inner, columns])
    product = _shaped(op, op.MatMul(left, right), [*dims, *sizes.of(own), *sizes.of(others)])
    return Labelled(product, batch + own + others)


register(
    Operator(
        "Einsum",
        examples=(
            Example('y = Einsum<equation="bhid,bhjd->bhij">(x, z)', {"x": (1, 2, 5, 4), "z": (1, 2, 3, 4)}),
            Example('y = Einsum<equation="...ij,jk->...ki">(x, w)', {"x": (2, 3, 4)}, {"w": (4, 5)}),
            Example('y = Einsum<equation="ij,j,ik->k">(x, w, z)', {"x": (2, 3), "z": (2, 4)}, {"w": (3,)}),
        ),
        accepts=_accepts,
        parts=_parts,
        integer_parts=_parts,
    )
)
