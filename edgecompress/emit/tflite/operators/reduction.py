"""Reductions along axes, softmax and arg max."""

from __future__ import annotations

import numpy as np

from edgecompress.emit.tflite.registry import lowering
from edgecompress.graph.annotations import Quantization
from edgecompress.graph.fusion import Layer
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context, shape
from edgecompress.lowering.flatbuffer import TENSOR_TYPES

REDUCTIONS = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX"}


def integer(layer: Layer, name: str, default: int) -> int:
    attribute = layer.node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


@lowering(*REDUCTIONS)
def reduce(ctx: Context, layer: Layer) -> None:
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    rank, form = len(shape(x)), ctx.form(x)
    given = ctx.array(layer.node.inputs[1]) if len(layer.node.inputs) > 1 else None
    removed = sorted({int(a) % rank for a in given.ravel()}) if given is not None and given.size else list(range(rank))
    if given is not None and given.size == 0 and integer(layer, "noop_with_empty_axes", 0):
        ctx.bind(y, ctx.get(x, form, int8), form, int8)
        return
    keep = bool(integer(layer, "keepdims", 1))
    result = form if keep else forms.reduced(form, removed)
    positions = ctx.ints([i for i, a in enumerate(form) if a in removed])
    source, target = ctx.get(x, form, int8), ctx.new(y, result, int8)
    if layer.node.op_type == "ReduceSum" and int8:
        sum_int8(ctx, source, positions, target, int(np.prod([shape(x)[a] for a in removed])), keep)
    else:
        ctx.op(REDUCTIONS[layer.node.op_type], [source, positions], [target], keepDims=keep)


def sum_int8(ctx: Context, source: int, positions: int, target: int, count: int, keep: bool) -> None:
    """count * MEAN: LiteRT's reference SUM does not rescale int8. The mean has the sum's integers, at 1/count of its
    scale, and multiplying by count = 127 steps of count / 127 gives them back exactly."""
    result = ctx.tensor(target)
    q = Quantization(result.quantization.scale / np.float32(count), result.quantization.zero_point)
    mean = ctx.op(
        "MEAN",
        [source, positions],
        [ctx.temporary(f"{result.name}/mean", result.shape, result.dtype, q)],
        keepDims=keep,
    )
    factor = Quantization(np.array([count / 127], np.float32), np.zeros(1, np.int32))
    ctx.op("MUL", [mean, ctx.constant(np.array([127], np.int8), factor)], [target])


@lowering("Softmax", "LogSoftmax")
def softmax(ctx: Context, layer: Layer) -> None:
    """TFLite's runs along the last axis: the form is chosen so that the ONNX axis comes last."""
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    rank = len(shape(x))
    form = with_last(ctx.form(x), integer(layer, "axis", -1) % rank)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    if layer.node.op_type == "Softmax":
        ctx.op("SOFTMAX", [source], [target], beta=1.0)
    else:
        ctx.op("LOG_SOFTMAX", [source], [target])


def with_last(form: forms.Form, axis: int) -> forms.Form:
    """
    >>> with_last((0, 1, 2), 1)
    (0, 2, 1)
    """
    return form if form[-1] == axis else (*(a for a in form if a != axis), axis)


@lowering("ArgMax")
def arg_max(ctx: Context, layer: Layer) -> None:
    x, y, int8 = layer.node.inputs[0], layer.output, ctx.layer_int8(layer)
    rank, form = len(shape(x)), ctx.form(x)
    axis = integer(layer, "axis", 0) % rank
    dropped = forms.reduced(form, [axis])
    source = ctx.get(x, form, int8)
    target = ctx.new(y, form if integer(layer, "keepdims", 1) else dropped)
    result = target
    if integer(layer, "keepdims", 1):
        dims = [n for n, a in zip(ctx.tensor(source).shape, form) if a != axis]
        result = ctx.temporary(f"{y.name}/flat", tuple(dims), y.dtype)
    ctx.op("ARG_MAX", [source, ctx.ints([form.index(axis)])], [result], outputType=TENSOR_TYPES[y.dtype])
    if result != target:
        ctx.reshape(result, target)
