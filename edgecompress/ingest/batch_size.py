"""The same model for another number of samples."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgecompress.errors import InputError
from edgecompress.graph.batch_axes import Growth, Place, batch_axes, grown_axis
from edgecompress.graph.provenance import label
from edgecompress.ingest.passes.edit import Edit, static_shape
from edgecompress.ingest.passes.infer_shapes import infer_node
from edgecompress.operators import record_of


class FixedBatchError(Exception):
    """Why a model can be had for no other number of samples, in words."""


def with_batch(model: ir.Model, batch: int) -> tuple[ir.Model, dict[str, int]]:
    """A clone of a canonical model, annotated or not, that takes `batch` samples along axis 0 of every input, and the
    axis that grew of each value, by name; values without samples are not there.

    That is no proof: whether it computes the same, running it shows. Raises FixedBatchError.
    """
    clone = model.clone()
    graph, edit = clone.graph, Edit(clone.graph)
    sizes = {shape[0] if (shape := static_shape(value)) else 0 for value in graph.inputs}
    if len(sizes) != 1 or 0 in sizes:
        raise FixedBatchError("its inputs don't share an axis of samples")
    own, places = sizes.pop(), dict[ir.Value, Place]()
    for value in graph.inputs:
        places[value] = Place(0, 1)
        value.shape = ir.Shape([batch, *static_shape(value)[1:]])  # type: ignore[index]
    for node in list(graph):
        _grow(node, Growth(own, batch, places, batch_axes(graph) or {}), edit, clone.opset_imports)
    return clone, {str(value.name): place.axis for value, place in places.items()}


def _grow(node: ir.Node, growth: Growth, edit: Edit, opsets: dict[str, int]) -> None:
    """Changes the node's constants and the shapes of its outputs, and says where these have grown."""
    if not any(v in growth.places for v in node.inputs if v is not None):
        return
    changes = record_of(node).batch(node, growth)
    if changes is None:
        raise FixedBatchError(f"{label(node)} has the batch size built in")
    before = [static_shape(v) for v in node.outputs]
    for position, array in changes.items():
        old = node.inputs[position]
        new = None if array is None else edit.constant(None if old is None else old.name, array)
        node.replace_input_with(position, new)
    for value in node.outputs:
        value.shape = None
    try:
        infer_node(node, opsets)
    except InputError as error:
        raise FixedBatchError(f"{label(node)} mixes samples, or has the batch size built in") from error
    for value, size in zip(node.outputs, before, strict=True):
        if static_shape(value) is None:
            raise FixedBatchError(f"{label(node)} has a shape that is known for the batch size {growth.own} alone")
        axis = grown_axis(None if size is None else ir.Shape(size), value.shape)
        if axis is not None and size is not None:
            growth.places[value] = Place(axis, _outer(node, growth, axis, size))


def _outer(node: ir.Node, growth: Growth, axis: int, size: tuple[int, ...]) -> int:
    """How many parts of the output's axis lie around the samples."""
    source = next((v for v in node.inputs if v in growth.places), None)
    if source is None or source.shape is None:
        return 1
    place, shape = growth.places[source], source.shape.numpy()
    if node.op_type == "Reshape":
        return math.prod(shape[: place.axis]) * place.outer // math.prod(size[:axis])
    return place.outer if growth.grown(size[axis]) == shape[place.axis] else 1
