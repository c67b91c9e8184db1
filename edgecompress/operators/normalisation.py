"""Normalisations and softmax."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import ChannelAxes, shape
from edgecompress.graph.channel_rules import broadcast
from edgecompress.graph.fusion import Layer
from edgecompress.graph.intervals import Interval, Known, bound_of, times
from edgecompress.graph.nodes import argument, arguments, integer, number, parameter
from edgecompress.graph.provenance import label
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import constant_inputs, one_output
from edgecompress.operators.elementwise import fixed_output
from edgecompress.operators.example import Example
from edgecompress.operators.record import Operator, TorchFunction, Weights, never, register

if TYPE_CHECKING:
    from torch import Tensor

# (parts, x, axes, epsilon) -> (x - mean) / sqrt(variance + epsilon) over the axes
Normalise = Callable[[Parts, ir.Value, Sequence[int], float], ir.Value]

# ---- TFLite, or other operators ----


def _lower_softmax(ctx: Context, layer: Layer) -> None:
    """TFLite's runs along the last axis: the form is chosen so that the ONNX axis comes last."""
    x, y, int8 = argument(layer.node, 0), layer.output, ctx.layer_int8(layer)
    rank = len(shape(x))
    form = _with_last(ctx.form(x), integer(layer.node, "axis", -1) % rank)
    source, target = ctx.get(x, form, int8), ctx.new(y, form, int8)
    if layer.node.op_type == "Softmax":
        ctx.op("SOFTMAX", [source], [target], beta=1.0)
    else:
        ctx.op("LOG_SOFTMAX", [source], [target])


def _with_last(form: forms.Form, axis: int) -> forms.Form:
    """
    >>> _with_last((0, 1, 2), 1)
    (0, 2, 1)
    """
    return form if form[-1] == axis else (*(a for a in form if a != axis), axis)


def _normalised(op: Parts, x: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    """(x - mean) / sqrt(variance + epsilon) over `axes`."""
    centred = op.Sub(x, op.ReduceMean(x, np.array(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), np.array(axes), keepdims=1)
    return op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))


def _on_integers(op: Parts, x: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    """(x - mean) * (1 / sqrt(variance + epsilon)): every part has an int8 kernel, or is a table."""
    centred = op.Sub(x, op.ReduceMean(x, np.array(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), np.array(axes), keepdims=1)
    return op.Mul(centred, op.Pow(op.Add(variance, epsilon), -0.5))


def _layer_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return _layer(op, node, _normalised)


def _layer(op: Parts, node: ir.Node, normalise: Normalise) -> Sequence[ir.Value]:
    x, rank = argument(node, 0), len(shape(argument(node, 0)))
    axes = list(range(integer(node, "axis", -1) % rank, rank))
    result = op.Mul(normalise(op, x, axes, number(node, "epsilon", 1e-5)), argument(node, 1))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = op.Add(result, argument(node, 2))
    return [result]


def _instance_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return _instance(op, node, _normalised)


def _instance(op: Parts, node: ir.Node, normalise: Normalise) -> Sequence[ir.Value]:
    x = argument(node, 0)
    rank = len(shape(x))
    scale, bias = (parameter(node, i).reshape([1, -1] + [1] * (rank - 2)) for i in (1, 2))
    centred = normalise(op, x, range(2, rank), number(node, "epsilon", 1e-5))
    return [op.Add(op.Mul(centred, scale), bias)]


def _layer_integer_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return _layer(op, node, _on_integers)


def _instance_integer_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    return _instance(op, node, _on_integers)


def _accepts_batch_normalization(node: ir.Node) -> str | None:
    if integer(node, "training_mode", 0):
        return "operator BatchNormalization in training mode"
    return constant_inputs(1, 2, 3, 4)(node)


def _response_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """x / (bias + alpha / size * s)^beta, where s is the sum of squares of neighbouring channels: a 1x1 convolution
    (Krizhevsky et al. 2012, section 3.3)."""
    x, size = argument(node, 0), integer(node, "size")
    channels = shape(x)[1]
    away = np.subtract.outer(np.arange(channels), np.arange(channels))  # output - input
    band = (away <= (size - 1) // 2) & (away >= -(size // 2))
    flat = op.Reshape(x, [shape(x)[0], channels, 1, -1])
    kernel, bias = band.astype(np.float32)[:, :, None, None], np.zeros(channels, np.float32)
    attributes = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
    total = op.Conv(op.Mul(flat, flat), kernel, bias, **attributes)
    scaled = op.Add(op.Mul(total, number(node, "alpha", 1e-4) / size), number(node, "bias", 1.0))
    power = op.Exp(op.Mul(op.Log(scaled), -number(node, "beta", 0.75)))
    return [op.Mul(x, op.Reshape(power, list(shape(x))))]


def _unit_length_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """x / max(|x|, tiny): zeros stay zeros."""
    x, axis = argument(node, 0), [integer(node, "axis", -1)]
    if integer(node, "p", 2) == 1:
        length = op.ReduceSum(op.Abs(x), axis, keepdims=1)
    else:
        length = op.Sqrt(op.ReduceSum(op.Mul(x, x), axis, keepdims=1))
    return [op.Div(x, op.Max(length, float(np.finfo(np.float32).tiny)))]


# ---- channels and bounds ----


def _per_channel(node: ir.Node, axes: ChannelAxes) -> None:
    """Parameters are [C], of axis 1; InstanceNormalization takes its statistics over the axes behind."""
    x, y = argument(node, 0), node.outputs[0]
    broadcast(x, y, axes)
    for value in arguments(node)[1:]:
        axes.couple(axes.ids(value, 0), axes.ids(y, 1))
    if node.op_type == "InstanceNormalization":
        for axis in range(2, len(shape(x))):
            axes.approximate(axes.ids(x, axis), f"{label(node)} computes mean and variance along this axis")


def _layer_channels(node: ir.Node, axes: ChannelAxes) -> None:
    x, y = argument(node, 0), node.outputs[0]
    for value in (x, *(v for v in node.inputs[1:] if v is not None)):
        broadcast(value, y, axes)
    for axis in range(integer(node, "axis", -1) % len(shape(x)), len(shape(x))):
        axes.approximate(axes.ids(x, axis), f"{label(node)} computes mean and variance along this axis")


def _along_axis(node: ir.Node, axes: ChannelAxes) -> None:
    x = argument(node, 0)
    broadcast(x, node.outputs[0], axes)
    axes.fix(axes.ids(x, integer(node, "axis", -1)), f"{label(node)} computes along this axis")


def _batch_bounds(node: ir.Node, known: Known) -> Interval:
    gamma, beta, mean, variance = (
        bound_of(known, i).low.reshape(-1, *(1,) * (bound_of(known, 0).low.ndim - 2)) for i in range(1, 5)
    )
    scale = gamma / np.sqrt(variance + number(node, "epsilon", 1e-5))
    sides = [times(x, scale) + (beta - mean * scale) for x in (bound_of(known, 0).low, bound_of(known, 0).high)]
    return Interval(np.minimum(*sides), np.maximum(*sides))


# ---- torch ----


def _batch_torch(node: ir.Node) -> TorchFunction:
    from edgecompress.operators.batchnorm_module import BatchNorm

    return BatchNorm(number(node, "epsilon", 1e-5))


def _instance_torch(node: ir.Node) -> TorchFunction:
    import torch

    epsilon = number(node, "epsilon", 1e-5)
    return lambda x, scale, bias: torch.group_norm(x, x.shape[1], scale, bias, epsilon)


def _layer_torch(node: ir.Node) -> TorchFunction:
    from torch.nn import functional as F

    axis, epsilon = integer(node, "axis", -1), number(node, "epsilon", 1e-5)

    def normalise(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        over = x.shape[axis:]
        if scale.shape == over:
            return F.layer_norm(x, over, scale, bias, epsilon)
        y = F.layer_norm(x, over, eps=epsilon) * scale
        return y if bias is None else y + bias

    return normalise


def _softmax_torch(node: ir.Node) -> TorchFunction:
    import torch

    return functools.partial(torch.softmax, dim=integer(node, "axis", -1))


def _log_softmax_torch(node: ir.Node) -> TorchFunction:
    import torch

    return functools.partial(torch.log_softmax, dim=integer(node, "axis", -1))


SCALED = {"s": (4,), "t": (4,)}


register(
    Operator(
        "BatchNormalization",
        examples=(
            Example(
                "y = BatchNormalization(x, s, t, m, v)",
                weights={**SCALED, "m": (4,)},
                constants={"v": np.array([0.5, 1, 2, 3], np.float32)},
            ),
        ),
        accepts=_accepts_batch_normalization,
        only_in_training=True,
        channels=_per_channel,
        bounds=_batch_bounds,
        torch=_batch_torch,
        weights=Weights(learned=(1, 2)),
    ),
    Operator(
        "InstanceNormalization",
        examples=(Example("y = InstanceNormalization(x, s, t)", weights=SCALED),),
        accepts=constant_inputs(1, 2),
        parts=_instance_parts,
        integer_parts=_instance_integer_parts,
        channels=_per_channel,
        torch=_instance_torch,
        weights=Weights(learned=(1, 2)),
    ),
    Operator(
        "LayerNormalization",
        examples=(
            Example("y = LayerNormalization(x, s, t)", {"x": (1, 6, 4)}, SCALED),
            Example("y = LayerNormalization<axis=1>(x, s)", {"x": (1, 6, 4)}, {"s": (6, 4)}),
        ),
        accepts=one_output,
        parts=_layer_parts,
        integer_parts=_layer_integer_parts,
        channels=_layer_channels,
        torch=_layer_torch,
        weights=Weights(learned=(1, 2)),
    ),
    Operator(
        "LRN",
        examples=(
            Example("y = LRN<size=3, alpha=0.5>(x)"),
            Example("y = LRN<size=5, alpha=0.5, beta=0.5, bias=2.0>(x)", {"x": (2, 6, 5, 1)}),
        ),
        parts=_response_parts,
        integer_parts=_response_parts,
    ),
    Operator(
        "LpNormalization",
        examples=(Example("y = LpNormalization<axis=1>(x)"), Example("y = LpNormalization<p=1>(x)")),
        parts=_unit_length_parts,
        integer_parts=_unit_length_parts,
    ),
    Operator(
        "Softmax",
        examples=(Example("y = Softmax(x)"), Example("y = Softmax<axis=1>(x)")),
        channels=_along_axis,
        torch=_softmax_torch,
        integer=fixed_output(1 / 256, -128),
        tflite=_lower_softmax,
        ranks=True,
    ),
    Operator(
        "LogSoftmax",
        examples=(Example("y = LogSoftmax(x)"),),
        channels=_along_axis,
        torch=_log_softmax_torch,
        integer=fixed_output(16 / 256, 127, int16=never),
        tflite=_lower_softmax,
        ranks=True,
    ),
)
