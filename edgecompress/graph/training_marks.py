"""What the recipe says of what is trained, put on a model's nodes and constants."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.graph.annotations import set_trained
from edgecompress.graph.fusion import constant


def mark_trained(graph: ir.Graph, freeze: Sequence[str], trainable: Sequence[str]) -> None:
    """Marks the nodes and constants of these names. Raises InputError for a name that is neither's, and for one that
    is in both lists."""
    named: dict[str, ir.Node | ir.Value] = {str(n.name): n for n in graph if any(map(_is_array, n.inputs))}
    named |= {name: value for name, value in graph.initializers.items() if _is_array(value)}
    if both := set(freeze) & set(trainable):
        raise InputError(f"[train]: {min(both)!r} is both in freeze and in trainable: keep only one")
    for key, names in (("freeze", freeze), ("trainable", trainable)):
        for name in names:
            if name not in named:
                near = difflib.get_close_matches(name, named, 3, 0.5) or list(named)[:3]
                raise InputError(
                    f"[train] {key}: {name!r} is no node with constants, and no constant of the model; is it "
                    f"{' or '.join(map(repr, near))}?"
                )
            set_trained(named[name], key == "trainable")


def _is_array(value: ir.Value | None) -> bool:
    return value is not None and constant(value) is not None and value.dtype == ir.DataType.FLOAT
