"""A node's inputs and attributes as Python values of the right types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecompress.graph.fusion import constant


def argument(node: ir.Node, position: int) -> ir.Value:
    """The input at a position where the operator always has one. Raises ValueError when it is left out."""
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        raise ValueError(f"{node.op_type} {node.name!r} has no input {position}")
    return value


def arguments(node: ir.Node) -> list[ir.Value]:
    """All inputs that are not left out."""
    return [v for v in node.inputs if v is not None]


def optional_parameter(node: ir.Node, position: int) -> np.ndarray | None:
    """The constant at an input position; None where the input is left out, or computed."""
    return constant(node.inputs[position]) if position < len(node.inputs) else None


def parameter(node: ir.Node, position: int) -> np.ndarray:
    """The constant at an input position where ingest has made sure of one. Raises ValueError when there is none."""
    array = optional_parameter(node, position)
    if array is None:
        raise ValueError(f"{node.op_type} {node.name!r}: its input {position} is not a constant")
    return array


def parameter_integers(node: ir.Node, position: int) -> list[int]:
    """The whole numbers of a constant input; none where it is left out."""
    array = optional_parameter(node, position)
    return [] if array is None else [int(i) for i in array.reshape(-1)]


def integer(node: ir.Node, name: str, default: int = 0) -> int:
    """The attribute of that name."""
    found = node.attributes.get_int(name, default)
    return default if found is None else int(found)


def number(node: ir.Node, name: str, default: float) -> float:
    """The attribute of that name as a float; it may be written as a whole number."""
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def text(node: ir.Node, name: str, default: str) -> str:
    """The attribute of that name."""
    found = node.attributes.get_string(name, default)
    return default if found is None else str(found)


def integers(node: ir.Node, name: str, default: Sequence[int] = ()) -> list[int]:
    """The list of whole numbers that the attribute of that name is."""
    found = node.attributes.get_ints(name, default)
    return list(default) if found is None else [int(i) for i in found]
