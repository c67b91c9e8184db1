"""Operators that pick positions by their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

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


def _lower_gather(ctx: Context, layer: Layer) -> None:
    """Indices are int32 in the file: TensorFlow Lite Micro has no other."""
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
    ctx.op("GATHER", [ctx.get(x, form, int8), where], [ctx.new(y, result, int8)], axis=place)


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
        weights=Weights(learned=(0,), least=2, matrices=(MatrixInput(0, -1, 0),)),
        integer=Integer(SAME, passive=True),
        tflite=_lower_gather,
    )
)
