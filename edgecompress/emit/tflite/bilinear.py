"""Writes RESIZE_BILINEAR on int8 with other operators where its kernels read past their input."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecompress.graph.annotations import Quantization
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import FlatBuffer
from edgecompress.lowering.tensors import Operator


def write_long_resizes(buffer: FlatBuffer) -> None:
    """y = a + w (b - a) of the neighbours a and b, along one axis after the other: the rounded step of TFLM's and
    LiteRT's reference kernel runs past the last row where it is added up often, from about sqrt(2048 n) rows on."""
    operators, buffer.operators = buffer.operators, []
    ctx = Context(buffer)
    for operator in operators:
        if not (operator.kind == "RESIZE_BILINEAR" and _reads_past(ctx, operator)):
            buffer.operators.append(operator)
            continue
        ctx.origin = operator.origin
        (x, _), (y,) = operator.inputs, operator.outputs
        middle = list(ctx.tensor(x).shape)
        middle[1] = ctx.tensor(y).shape[1]
        rows = ctx.like(y, f"{ctx.tensor(y).name}/rows", tuple(middle))
        _stretch(ctx, x, rows, 1, *_flags(operator))
        _stretch(ctx, rows, y, 2, *_flags(operator))


def _flags(operator: Operator) -> tuple[bool, bool]:
    options = cast(schema.ResizeBilinearOptionsT, operator.options)
    return bool(options.alignCorners), bool(options.halfPixelCenters)


def _reads_past(ctx: Context, operator: Operator) -> bool:
    from edgecompress_runtime.kernels.resize import reads_past  # imports Numba, which few models need

    x, y = ctx.tensor(operator.inputs[0]), ctx.tensor(operator.outputs[0])
    if x.quantization is None:
        return False
    return any(reads_past(n, out, *_flags(operator)) for n, out in zip(x.shape[1:3], y.shape[1:3]))


def _stretch(ctx: Context, x: int, y: int, axis: int, align: bool, half: bool) -> None:
    from edgecompress_runtime.kernels.resize import floating

    source, target = ctx.tensor(x), ctx.tensor(y)
    lower, upper, weight = floating(source.shape[axis], target.shape[axis], align, half)
    q = target.quantization
    assert q is not None
    a, b = (ctx.like(y, f"{target.name}/neighbour_{i}", target.shape) for i in range(2))
    twice = replace(q, scale=2 * q.scale, zero_point=np.zeros_like(q.zero_point))  # a difference has twice the range
    difference, share = (ctx.temporary(f"{target.name}/share_{i}", target.shape, target.dtype, twice) for i in range(2))
    dims = [1] * len(target.shape)
    dims[axis] = -1
    shares = Quantization(np.array([1 / 127], np.float32), np.zeros(1, np.int32))
    w = ctx.constant(shares.quantize(weight.reshape(dims)), shares)
    ctx.op("GATHER", [x, ctx.constant(lower)], [a], axis=axis)
    ctx.op("GATHER", [x, ctx.constant(upper)], [b], axis=axis)
    ctx.op("SUB", [b, a], [difference], fusedActivationFunction=0)
    ctx.op("MUL", [difference, w], [share], fusedActivationFunction=0)
    ctx.op("ADD", [a, share], [y], fusedActivationFunction=0)
