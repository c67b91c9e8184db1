"""Which node of the user's model a node came from, after rewriting has replaced that one.

Messages and reports name that node: the user has no other. It is noted in the node's metadata, which conversions of
the model keep and emitters leave out.
"""

from __future__ import annotations

import onnx_ir as ir

_NAME, _OPERATOR = "edgecompress.node", "edgecompress.operator"


def follow(part: ir.Node, whole: ir.Node) -> None:
    """Records that `part` computes some of what `whole` did."""
    part.metadata_props[_NAME], part.metadata_props[_OPERATOR] = origin(whole)


def replace_origin(node: ir.Node, old: ir.Node) -> None:
    """Records that `node` computes all that `old` did, so that it has the same origin."""
    for key in (_NAME, _OPERATOR):
        node.metadata_props.pop(key, None)
        if key in old.metadata_props:
            node.metadata_props[key] = old.metadata_props[key]


def origin(node: ir.Node) -> tuple[str, str]:
    """(name, operator) of the node in the user's model; of a node without a name, the name of its first output."""
    name = node.name or next((v.name for v in node.outputs if v.name), None) or "unnamed"
    return node.metadata_props.get(_NAME, name), node.metadata_props.get(_OPERATOR, node.op_type)


def label(node: ir.Node) -> str:
    """The user's node as messages call it: operator and name."""
    name, operator = origin(node)
    return f"{operator} {name!r}"


def own_operator(node: ir.Node) -> str:
    """The node's operator, and of which other it is a part, if it is one."""
    operator = origin(node)[1]
    return node.op_type if operator == node.op_type else f"{node.op_type} of {operator}"
