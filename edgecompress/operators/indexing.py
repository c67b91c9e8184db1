"""Operators that pick positions by their number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import must_be_integer, quantization
from edgecompress.graph.channel_axes import ChannelAxes, axes_except, shape
from edgecompress.graph.fusion import Layer, constant
from edgecompress.graph.nodes import argument, integer, optional_parameter
from edgecompress.graph.provenance import label
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.operators.example import Example
from edgecompress.operators.record import (
    SAME,
    Integer,
    Kept,
    MatrixInput,
    Operator,
    Renew,
    TorchFunction,
    Weights,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor


LEAST = 1024  # numbers of a table that is worth to be looked up in integers


def _is_table(node: ir.Node) -> bool:
    """Whether a node picks rows of a constant matrix, such as the embeddings of tokens."""
    table = constant(node.inputs[0])
    return table is not None and table.dtype == np.float32 and table.ndim == 2 and integer(node, "axis", 0) in (0, -2)


def _stores_table(node: ir.Node) -> bool:
    table = constant(node.inputs[0])
    return _is_table(node) and table is not None and table.size >= LEAST


def _lower_gather(ctx: Context, layer: Layer) -> None:
    """Indices are int32 in the file: TensorFlow Lite Micro has no other. Rows of an int8 table are picked together with
    their scales, where the layer computes in float.
    """
    x, indices = argument(layer.node, 0), argument(layer.node, 1)
    y, int8 = layer.output, ctx.layer_int8(layer)
    dims, rank = shape(x), len(shape(x))
    axis = integer(layer.node, "axis", 0) % rank
    form, index_form = forms.identity(rank), forms.identity(len(shape(indices)))
    picked = ctx.array(indices)
    if picked is not None and picked.ndim <= 1:
        form = ctx.form(x)  # the axis stays in its place
    if picked is not None:
        where = ctx.constant((picked % dims[axis]).astype(np.int32), name=indices.name or "")
    else:
        where = ctx.get(indices, index_form)
    place = form.index(axis)
    result = forms.identity(len(shape(y)))
    if picked is not None and form != forms.identity(rank):
        result = form if picked.ndim == 1 else forms.reduced(form, [axis])
    if not int8 and _is_stored(x):
        _lower_rows(ctx, x, where, ctx.new(y, result))
        return
    ctx.op("GATHER", [ctx.get(x, form, int8), where], [ctx.new(y, result, int8)], axis=place)


def _is_stored(table: ir.Value) -> bool:
    q = quantization(table)
    return table.const_value is not None and q is not None and q.dtype == ir.DataType.INT8


def _lower_rows(ctx: Context, table: ir.Value, where: int, target: int) -> None:
    """Whole numbers of the table [rows, n], times the scales of their rows: DEQUANTIZE takes one scale, here 1."""
    q, array, dims = quantization(table), ctx.array(table), ctx.tensor(target).shape
    assert q is not None and array is not None
    name = ctx.tensor(target).name
    one = replace(q, scale=np.ones(1, np.float32), zero_point=q.zero_point[:1], axis=None)
    scales = ctx.constant(np.broadcast_to(q.scale, len(array)).astype(np.float32)[:, None], name=f"{table.name}/scales")
    stored = ctx.constant(q.quantize(array), one, table.name or "")
    rows = ctx.op("GATHER", [stored, where], [ctx.temporary(f"{name}/int8", dims, ir.DataType.INT8, one)], axis=0)
    whole = ctx.op("DEQUANTIZE", [rows], [ctx.temporary(f"{name}/whole", dims, ir.DataType.FLOAT)])
    scale = ctx.temporary(f"{name}/scale", (*dims[:-1], 1), ir.DataType.FLOAT)
    ctx.op("MUL", [whole, ctx.op("GATHER", [scales, where], [scale], axis=0)], [target])


def _gather_channels(node: ir.Node, axes: ChannelAxes) -> None:
    """Picked by a list of constants positions stay the same ones; else the axis can't lose any."""
    x, indices, y = argument(node, 0), argument(node, 1), node.outputs[0]
    axis, rank = integer(node, "axis", 0) % len(shape(x)), len(shape(indices))
    picked = constant(indices)
    if picked is not None and rank == 1:
        axes.couple(axes.ids(x, axis)[picked], axes.ids(y, axis))
    else:
        axes.fix(axes.ids(x, axis), f"{label(node)} picks positions along this axis")
        for i in range(rank):
            if picked is None:
                axes.couple(axes.ids(indices, i), axes.ids(y, axis + i))
            else:
                axes.fix(axes.ids(y, axis + i), f"{label(node)} picks positions along this axis")
    for i in axes_except(x, [axis]):
        axes.couple(axes.ids(x, i), axes.ids(y, i if i < axis else i + rank - 1))


def _renew_gather(node: ir.Node, kept: Kept, renew: Renew) -> None:
    axis = integer(node, "axis", 0) % len(shape(argument(node, 0)))
    picked, whole = optional_parameter(node, 1), kept(argument(node, 0), axis)
    if picked is None or picked.ndim != 1 or whole.all():
        return
    stays = picked[whole[picked]] % len(whole)
    renew(node, 1, (np.cumsum(whole) - 1)[stays])


def _gather_torch(node: ir.Node) -> TorchFunction:
    import torch

    axis, picked = integer(node, "axis"), optional_parameter(node, 1)
    if picked is not None and picked.ndim == 0:
        return lambda x, indices: x.select(axis, int(picked))

    def pick(x: Tensor, indices: Tensor) -> Tensor:
        wrapped = torch.where(indices < 0, indices + x.shape[axis], indices)
        rows = x.index_select(axis, wrapped.reshape(-1))
        return rows.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    return pick


register(
    Operator(
        "Gather",
        examples=(
            Example("y = Gather<axis=1>(x, i)", constants={"i": [2, 0, 2]}),
            Example("y = Gather<axis=2>(x, i)", constants={"i": np.int64(1)}),
            Example("i = ArgMax<axis=2, keepdims=0>(x) y = Gather(t, i)", {"x": (1, 5, 7)}, {"t": (7, 3)}),
        ),
        channels=_gather_channels,
        change=_renew_gather,
        torch=_gather_torch,
        weights=Weights(
            learned=(0,), least=2, matrices=(MatrixInput(0, -1, 0),), stored=(0,), stored_axis=0, stores=_stores_table
        ),
        integer=Integer(SAME, passive=True, accepts=lambda node: must_be_integer(node) or not _is_table(node)),
        tflite=_lower_gather,
    )
)
