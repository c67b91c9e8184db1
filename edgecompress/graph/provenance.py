"""Which node of the user's model a node came from, where rewriting has put it in that one's place."""

from __future__ import annotations

import onnx_ir as ir

_NAME, _OPERATOR = "edgecompress.node", "edgecompress.operator"


def follow(part: ir.Node, whole: ir.Node) -> None:
    """Notes that `part` computes some of what `whole` did: it is shown under that node's name and operator."""
    part.metadata_props[_NAME], part.metadata_props[_OPERATOR] = origin(whole)


def origin(node: ir.Node) -> tuple[str, str]:
    """(name, operator) of the node in the user's model; of a node without a name, the name of its first output."""
    name = node.name or next((v.name for v in node.outputs if v.name), None) or "unnamed"
    return node.metadata_props.get(_NAME, name), node.metadata_props.get(_OPERATOR, node.op_type)
