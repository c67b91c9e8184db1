"""The shapes of inputs that one model is converted for, where these are several: what differs between them.

The graph itself has one of them, the largest. All weights are shared; `ingest.several_shapes` makes the same graph for
another shape, whatever compression has done to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

Shape = tuple[int, ...]
Place = tuple[str, int]  # of an operand: the name of the node that reads it, and its position


@dataclass(frozen=True, eq=False)
class Operand:
    """A constant that depends on the shape. own: as the graph has it; other: for the other shape."""

    own: np.ndarray
    other: np.ndarray

    @property
    def is_part(self) -> bool:
        """Whether the other shape's is the first part of it along each axis: rows of a table of positions, a mask."""
        own, other = self.own, self.other
        fits = own.ndim == other.ndim > 0 and all(n <= m for n, m in zip(other.shape, own.shape))
        return fits and other.shape != own.shape and np.array_equal(self.cut(own), other)

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The first part of an array, of the other shape's size."""
        return array[tuple(slice(n) for n in self.other.shape)]


@dataclass(frozen=True, eq=False)
class Sizes:
    """One of several shapes. key: what signatures and reports call it. inputs: the shape of each, by name. operands:
    constants that depend on the shape. attributes: the same of nodes, by their names."""

    key: str
    inputs: Mapping[str, Shape]
    operands: Mapping[Place, Operand] = field(default_factory=dict, repr=False)
    attributes: Mapping[str, Mapping[str, ir.Attr]] = field(default_factory=dict, repr=False)


def several_sizes(graph: ir.Graph) -> tuple[Sizes, ...]:
    """The shapes that the model is converted for, in the user's order; empty where there is one."""
    found: tuple[Sizes, ...] = graph.meta.get("several_sizes", ())
    return found


def set_several_sizes(graph: ir.Graph, sizes: tuple[Sizes, ...]) -> None:
    """Records the shapes that the model is converted for; one of them is the graph's own."""
    graph.meta["several_sizes"] = sizes


def own_sizes(graph: ir.Graph) -> Sizes | None:
    """That of the shapes which the graph has; None where there is one."""
    own = {str(v.name): tuple(v.shape.numpy()) for v in graph.inputs if v.shape is not None}
    return next((sizes for sizes in several_sizes(graph) if dict(sizes.inputs) == own), None)


def own_key(graph: ir.Graph) -> str:
    """The key of the graph's own shapes; "" where there is one."""
    own = own_sizes(graph)
    return "" if own is None else own.key


def other_sizes(graph: ir.Graph) -> tuple[Sizes, ...]:
    """All of the shapes but the graph's own."""
    own = own_sizes(graph)
    return tuple(sizes for sizes in several_sizes(graph) if sizes is not own)
