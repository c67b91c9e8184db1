"""Which ONNX operators (opset 21) can be converted, and which of their forms are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx
import onnx_ir as ir

from edgecompress.errors import UnsupportedModelError
from edgecompress.graph.annotations import set_only_in_onnx
from edgecompress.graph.provenance import origin
from edgecompress.operators import OPERATORS as RECORDS
from edgecompress.operators import record_of

OPERATORS = frozenset(name for name, record in RECORDS.items() if not record.only_in_training)

# Operators that ingest turns into those above, or computes beforehand.
REWRITTEN = frozenset(
    [
        "ArgMin", "BatchNormalization", "CastLike", "Compress", "Constant", "ConstantOfShape", "Dropout",
        "Flatten", "GlobalLpPool", "GreaterOrEqual", "LessOrEqual", "LpPool", "Mean", "Range", "ReduceMin", "Shape",
        "Size", "Squeeze", "Sum", "Unsqueeze",
    ]
)  # fmt: skip

# Left in a model that is to be trained, when ingest is told to.
TRAINED = frozenset(RECORDS) - OPERATORS

# What a user can do about operators that are refused as a family.
HINTS = {
    ("If", "Loop", "Scan"): (
        "control flow that depends on data can't be converted; where an input decides, make it a constant (--set "
        "NAME=VALUE), or export the model with fixed shapes, or trace it instead of scripting it"
    ),
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
        "ConvInteger", "MatMulInteger",
    ): (
        "the model computes on integers already; pass the float model that it was made from, or a model quantized "
        "in ONNX's QDQ format"
    ),
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"): (
        "make what is drawn by chance an input of the model"
    ),
}  # fmt: skip

# What even ONNX can't keep: graphs inside nodes, numbers drawn by chance, which no check of a file could compare, and
# models that compute on integers, of which nothing can be calibrated.
NEVER = frozenset(name for family in HINTS for name in family)

# Values that the nodes of a canonical model may have, and those of nodes that only ONNX can have.
DTYPES = frozenset({ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})
ONNX_DTYPES = DTYPES | {
    ir.DataType.INT8, ir.DataType.INT16, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
}  # fmt: skip


def require_supported(model: ir.Model, also: frozenset[str] = frozenset(), others: Sequence[str] = ()) -> None:
    """Raises UnsupportedModelError, naming every node at fault, if the model has something that no format can have.
    Nodes that ONNX alone can have are marked so. also: operators allowed besides OPERATORS. others: faults of another
    kind, which are named with them.
    """
    allowed = OPERATORS | also
    faults = [(n, reason) for n in model.graph.all_nodes() if (reason := _fault(n, allowed)) is not None]
    refused = [fault for fault in faults if not _is_kept(fault[0])]
    if not refused and not others:
        for node, reason in faults:
            set_only_in_onnx(node, reason)
        return
    nodes = f"{len(refused)} {'node' if len(refused) == 1 else 'nodes'} can't be converted: {listed(refused)}"
    raise UnsupportedModelError("; ".join([*others, *([nodes] if refused else [])]))


def listed(faults: Sequence[tuple[ir.Node, str]]) -> str:
    """The nodes by the reason why they can't be converted, and what to do about them."""
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
    return f"{'; '.join(lines)}. What to do: {'; '.join(advice)}."


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


def _is_kept(node: ir.Node) -> bool:
    """Whether ONNX can have the node as it is: an operator of the standard, on tensors of numbers."""
    if node.domain not in ("", "ai.onnx") or node.op_type in NEVER or not onnx.defs.has(node.op_type):
        return False
    if node.op_type in RECORDS and RECORDS[node.op_type].only_in_training:
        return False
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return all(isinstance(value.type, ir.TensorType | None) and value.dtype in {*ONNX_DTYPES, None} for value in values)
