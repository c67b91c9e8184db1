"""Writes fully connected layers of float activations and int8 weights so that every runtime gets their scales right.

LiteRT computes FULLY_CONNECTED with a scale for each channel (version 12 of the operator), but tflite-runtime 2.14 does
so without a word with the first scale alone. With scale 1 for all weights, and the channels' scales in a MUL behind the
layer, no runtime has several scales to take care of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.lowering.context import ACTIVATIONS, Context
from edgecompress.lowering.flatbuffer import FlatBuffer
from edgecompress.lowering.tensors import Operator


def write_hybrid_channels(buffer: FlatBuffer) -> None:
    """Each such FULLY_CONNECTED of the buffer becomes one with scale 1, a MUL, and an ADD of its bias."""
    operators, buffer.operators = buffer.operators, []
    ctx = Context(buffer)
    for operator in operators:
        ctx.origin = operator.origin
        if operator.kind == "FULLY_CONNECTED" and _is_hybrid(ctx, operator):
            _write(ctx, operator)
        else:
            buffer.operators.append(operator)


def _is_hybrid(ctx: Context, operator: Operator) -> bool:
    x, weight = (ctx.tensor(i) for i in operator.inputs[:2])
    return x.dtype == ir.DataType.FLOAT and weight.dtype == ir.DataType.INT8 and weight.per_channel


def _write(ctx: Context, operator: Operator) -> None:
    (x, matrix, bias), (y,) = operator.inputs, operator.outputs
    options, weight = cast(schema.FullyConnectedOptionsT, operator.options), ctx.tensor(matrix)
    q, name, dims = weight.quantization, ctx.tensor(y).name, ctx.tensor(y).shape
    assert q is not None and weight.data is not None
    one = replace(q, scale=np.ones(1, np.float32), zero_point=q.zero_point[:1], axis=None)
    stored = ctx.constant(weight.data, one, weight.name)
    scales = ctx.constant(q.scale.astype(np.float32), name=f"{weight.name}/scales")
    whole = ctx.temporary(f"{name}/whole", dims, ir.DataType.FLOAT)
    ctx.op("FULLY_CONNECTED", [x, stored, -1], [whole], keepNumDims=options.keepNumDims)
    act = options.fusedActivationFunction
    if bias < 0:
        ctx.op("MUL", [whole, scales], [y], fusedActivationFunction=act)
        return
    scaled = ctx.temporary(f"{name}/scaled", dims, ir.DataType.FLOAT)
    ctx.op("MUL", [whole, scales], [scaled], fusedActivationFunction=ACTIVATIONS[None])
    ctx.op("ADD", [scaled, bias], [y], fusedActivationFunction=act)
