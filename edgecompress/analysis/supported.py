"""Which ONNX operators (opset 21) can be converted, and which of their forms are refused."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.provenance import origin
from edgecompress.operators import OPERATORS as RECORDS
from edgecompress.operators import record_of

OPERATORS = frozenset(name for name, record in RECORDS.items() if not record.only_in_training)

# Operators that ingest turns into those above, or computes beforehand.
REWRITTEN = frozenset(
    [
        "And", "ArgMin", "BatchNormalization", "CastLike", "Constant", "ConstantOfShape", "Dropout", "Flatten",
        "GreaterOrEqual", "LessOrEqual", "Mean", "Or", "Range", "ReduceMin", "Shape", "Size", "Squeeze", "Sum",
        "Unsqueeze",
    ]
)  # fmt: skip

# Left in a model that is to be trained, when ingest is told to.
TRAINED = frozenset(RECORDS) - OPERATORS

# What a user can do about operators that are refused as a family.
HINTS = {
    ("If", "Loop", "Scan"): (
        "control flow can't be converted; export the model with fixed shapes, or trace it instead of "
        "scripting it"
    ),
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
        "ConvInteger", "MatMulInteger",
    ): (
        "the model computes on integers already; pass the float model that it was made from, or a model quantized "
        "in ONNX's QDQ format"
    ),
}  # fmt: skip

# Values that a canonical model may have.
DTYPES = frozenset({ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


def require_supported(model: ir.Model, also: frozenset[str] = frozenset()) -> None:
    """Raises UnsupportedModelError, naming every node at fault, if the model has something not in the
    tables. also: operators allowed besides OPERATORS.
    """
    allowed = OPERATORS | also
    faults = [(n, reason) for n in model.graph.all_nodes() if (reason := _fault(n, allowed)) is not None]
    if not faults:
        return
    # Behind an operator that nobody knows shapes are unknown too, and ingest leaves what needs them as it is.
    faults = [f for f in faults if f[0].op_type not in REWRITTEN] or faults
    kinds = Counter(reason for _, reason in faults)
    lines = []
    for reason, count in sorted(kinds.items()):
        nodes = [_label(node) for node, r in faults if r == reason]
        lines.append(f"{reason}: {count} ({', '.join(nodes)})")
    op_types = {node.op_type for node, _ in faults}
    hints = [hint for family, hint in HINTS.items() if op_types.intersection(family)]
    advice = hints or [
        "replace these operators in the model, or convert only the part of the model that does without them"
    ]
    raise UnsupportedModelError(
        f"{len(faults)} {'node' if len(faults) == 1 else 'nodes'} can't be converted: {'; '.join(lines)}. "
        f"What to do: {'; '.join(advice)}."
    )


def _label(node: ir.Node) -> str:
    """The user's node by name, and its operator where the one at fault is a part of it."""
    name, operator = origin(node)
    return repr(name) if operator == node.op_type else f"{name!r}, {operator}"


def _fault(node: ir.Node, allowed: frozenset[str]) -> str | None:
    """Why the node can't be converted, or None."""
    if node.domain not in ("", "ai.onnx"):
        return f"operator {node.domain}.{node.op_type}"
    if node.op_type not in allowed:
        return f"operator {node.op_type}"
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.dtype is not None and value.dtype not in DTYPES:
            return f"operator {node.op_type} on {value.dtype.name.lower()} values"
    return record_of(node).accepts(node)
