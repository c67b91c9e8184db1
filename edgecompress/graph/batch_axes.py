"""Which axis of a value grows with the number of samples, in a model whose batch size was left open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

Axes = Mapping[str, int]


@dataclass(frozen=True)
class Place:
    """Where the samples are in a value: they are the dimension `axis`, or a factor of it.

    outer: how many parts of that dimension lie around them: it is [outer, samples, rest].
    """

    axis: int
    outer: int


@dataclass(frozen=True)
class Growth:
    """A change of the batch size from `own` to `batch`. places: of all values that have samples, so far. known: value
    name -> axis, as the model that came in says."""

    own: int
    batch: int
    places: dict[ir.Value, Place]
    known: Axes

    def grown(self, size: int) -> int:
        """The size of a dimension that holds the samples."""
        return size * self.batch // self.own

    def grown_at(self, sizes: np.ndarray, axis: int) -> np.ndarray:
        """int64 sizes of dimensions, of which `axis` holds the samples."""
        return np.array([self.grown(int(n)) if i == axis else int(n) for i, n in enumerate(sizes)], np.int64)

    def place(self, node: ir.Node) -> Place | None:
        """Where the samples are in the node's first input."""
        value = node.inputs[0]
        return None if value is None else self.places.get(value)


def batch_axes(graph: ir.Graph) -> Axes | None:
    """Value name -> its axis, as far as the model that came in says so; None where the batch size is fixed.

    The axes of all other values follow from these (`ingest.batch_size`).
    """
    found: Axes | None = graph.meta.get("batch_axes")
    return found


def set_batch_axes(graph: ir.Graph, axes: Axes | None) -> None:
    """Records that the batch size is open, or, with None, that it is fixed."""
    if axes is None:
        graph.meta.pop("batch_axes", None)
    else:
        graph.meta["batch_axes"] = dict(axes)


def grown_axes(one: ir.Graph, several: ir.Graph) -> dict[str, int]:
    """The axis of each value along which it is longer where the same graph is for several samples."""
    shapes = {v.name: v.shape for v in _values(several)}
    found = {}
    for value in _values(one):
        axis = grown_axis(value.shape, shapes.get(value.name))
        if axis is not None:
            found[str(value.name)] = axis
    return found


def grown_axis(before: ir.Shape | None, after: ir.Shape | None) -> int | None:
    """The only axis in which two static shapes differ; None where there is none."""
    if before is None or after is None or len(before) != len(after):
        return None
    grown = [i for i, (n, m) in enumerate(zip(before, after)) if n != m]
    return grown[0] if len(grown) == 1 else None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
