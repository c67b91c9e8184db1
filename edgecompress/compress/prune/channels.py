"""Removes channels from a model, which leaves a smaller dense model, or puts them into another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.analysis.channel_groups import ChannelGroup
from edgecompress.graph.annotations import (
    Codebook,
    codebook,
    given_quantization,
    set_codebook,
    set_given_quantization,
    set_sparsity,
    sparsity,
)
from edgecompress.graph.channel_axes import shape
from edgecompress.graph.nodes import argument, parameter
from edgecompress.ingest.passes.edit import Edit
from edgecompress.ingest.passes.infer_shapes import InferShapes
from edgecompress.operators import record_of
from edgecompress.support.present import present

Removed = Mapping[ChannelGroup, Sequence[int] | np.ndarray]


def remove_channels(model: ir.Model, removed: Removed) -> ir.Model:
    """A copy of a canonical model without these channels of its groups (`channel_groups`): canonical and smaller.

    Weights, biases and other constants lose their positions, parameters such as a Reshape's shape follow. Inputs and
    outputs keep their shapes. Raises ValueError for a group that is fixed or would lose all of its channels.
    """
    masks: dict[tuple[str, int], np.ndarray] = {}
    model = model.clone()
    values = {str(v.name): v for v in _values(model.graph)}
    for group, indices in removed.items():
        gone = np.zeros(group.size, bool)
        gone[np.asarray(indices, np.int64)] = True
        if not gone.any():
            continue
        if group.fixed is not None or gone.all():
            raise ValueError(f"{group.name}: {group.fixed or 'all channels would go'}")
        for m in group.members:
            mask = masks.setdefault((m.value, m.axis), np.ones(shape(values[m.value])[m.axis], bool))
            mask[m.positions[gone[m.channels]]] = False

    def kept(value: ir.Value, axis: int) -> np.ndarray:
        mask = masks.get((str(value.name), axis))
        return np.ones(shape(value)[axis], bool) if mask is None else mask

    edit = Edit(model.graph)

    def renew(node: ir.Node, position: int, array: np.ndarray) -> None:
        value, before = argument(node, position), parameter(node, position)
        if not np.array_equal(before, array):
            node.replace_input_with(position, edit.renewed(value, array.astype(before.dtype)))

    for node in model.graph:
        change = record_of(node).change
        if change is not None:
            change(node, kept, renew)
    for name, axis in masks:
        if name in model.graph.initializers:
            _take(model.graph.initializers[name], axis, np.flatnonzero(masks[name, axis]))
    return InferShapes()(model).model


def reorder_channels(model: ir.Model, orders: Mapping[ChannelGroup, np.ndarray]) -> ir.Model:
    """A copy of a canonical model that computes the same, with channels of its groups (`channel_groups`) in another
    order: channel orders[group][i] becomes channel i. For groups that only layers with weights read, through what
    treats each channel alike. Raises ValueError for a group that is fixed.
    """
    model = model.clone()
    for group, order in orders.items():
        if group.fixed is not None:
            raise ValueError(f"{group.name}: {group.fixed}")
        for m in group.members:
            value = model.graph.initializers.get(m.value)
            if value is not None:
                places = m.positions[np.lexsort((m.positions, m.channels))].reshape(group.size, -1)
                source = np.arange(shape(value)[m.axis])
                source[places] = places[order]
                _take(value, m.axis, source)
    return model


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]


def _take(value: ir.Value, axis: int, places: np.ndarray) -> None:
    """Leaves these positions along an axis, in this order."""
    array = np.take(present(value.const_value).numpy(), places, axis)
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)
    if (pruned := sparsity(value)) is not None:
        set_sparsity(value, replace(pruned, mask=np.take(pruned.mask, places, axis)))
    if (book := codebook(value)) is not None:
        scale = book.scale if book.axis != axis or book.scale is None else book.scale[places]
        set_codebook(value, Codebook(book.centroids, np.take(book.indices, places, axis), scale, book.axis))
    if (given := given_quantization(value)) is not None and given.axis == axis:
        set_given_quantization(value, replace(given, scale=given.scale[places], zero_point=given.zero_point[places]))
