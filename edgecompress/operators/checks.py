"""Reasons for which nodes are refused, shared by several records."""

from __future__ import annotations

import onnx_ir as ir

from edgecompress.graph.fusion import constant
from edgecompress.operators.record import Accepts


def constant_inputs(*positions: int) -> Accepts:
    """The inputs at these positions, if present, must be constants."""

    def check(node: ir.Node) -> str | None:
        for i in positions:
            if i < len(node.inputs) and node.inputs[i] is not None and constant(node.inputs[i]) is None:
                return f"operator {node.op_type} whose input {i} is computed, not constant"
        return None

    return check


def image_rank(node: ir.Node) -> str | None:
    """Images have one or two dimensions behind batch and channels."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is not None and len(shape) not in (3, 4):
        return f"operator {node.op_type} in {len(shape) - 2} dimensions (1 and 2 are supported)"
    return None


def spatial_rank(node: ir.Node) -> str | None:
    """Images and volumes have one to three dimensions behind batch and channels."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is not None and len(shape) not in (3, 4, 5):
        return f"operator {node.op_type} in {len(shape) - 2} dimensions (1 to 3 are supported)"
    return None


def one_output(node: ir.Node) -> str | None:
    """Nobody may read an output but the first."""
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return f"operator {node.op_type} with a second output"
    return None


def all_of(*checks: Accepts) -> Accepts:
    """The first reason that any of the checks has."""

    def check(node: ir.Node) -> str | None:
        return next((reason for c in checks if (reason := c(node)) is not None), None)

    return check
