"""int4 weights beside float activations, two in each byte: matrices of FULLY_CONNECTED, tables of EMBEDDING_LOOKUP.

A scale for each channel or row is right in all of LiteRT's kernels: it stands in a MUL behind the operator, as for
int8. Scales of smaller blocks are not written: XNNPACK multiplies by them, but LiteRT's other kernels, without a word,
compute zeros (2.3). Tables of an odd number of columns stay int8, since EMBEDDING_LOOKUP looks for rows at whole bytes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgecompress.graph.annotations import quantization, set_quantization
from edgecompress.graph.fusion import constant
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES, FlatBuffer
from edgecompress.lowering.tensors import Operator, Tensor


def take_whole_channels(graph: ir.Graph) -> str | None:
    """Annotates int4 weights with one block a channel as int8 of few values, in place. Returns what is wrong with
    others, in a line."""
    others = []
    for value in graph.initializers.values():
        q, array = quantization(value), constant(value)
        if q is None or q.block is None or array is None:
            continue
        if q.narrow_range and q.scale.shape[1] == 1:
            value.const_value = ir.tensor(q.dequantize(q.quantize(array)), name=value.name)
            set_quantization(value, replace(q, scale=q.scale[:, 0], zero_point=q.zero_point[:, 0], block=None))
        else:
            others.append(str(value.name))
    if not others:
        return None
    return (
        f"int4 weights in blocks, of which it has {len(others)} ({others[0]}, ...), are for .onnx files alone: set "
        '[quantize] int4_block = "channel", without zero points, or weights = "int8", or ask for --format onnx'
    )


def write_int4(buffer: FlatBuffer) -> None:
    """Such weights of the buffer, int8 so far, become INT4; a GATHER of their rows becomes EMBEDDING_LOOKUP."""
    operators, buffer.operators = buffer.operators, []
    ctx, picked = Context(buffer), dict[int, Operator]()
    for operator in operators:
        ctx.origin = operator.origin
        if operator.kind == "GATHER" and _is_int4(table := ctx.tensor(operator.inputs[0])) and table.shape[-1] % 2 == 0:
            picked[operator.outputs[0]] = operator
        elif operator.kind == "DEQUANTIZE" and operator.inputs[0] in picked:
            _look_up(ctx, picked[operator.inputs[0]], operator.outputs[0])
        elif operator.kind == "FULLY_CONNECTED" and _is_hybrid(ctx, operator):
            x, weight, bias = operator.inputs
            buffer.operators.append(replace(operator, inputs=(x, _packed(ctx, weight), bias)))
        else:
            buffer.operators.append(operator)


def _is_int4(tensor: Tensor) -> bool:
    q = tensor.quantization
    return tensor.data is not None and tensor.dtype == ir.DataType.INT8 and q is not None and q.kind == "int4"


def _is_hybrid(ctx: Context, operator: Operator) -> bool:
    return ctx.tensor(operator.inputs[0]).dtype == ir.DataType.FLOAT and _is_int4(ctx.tensor(operator.inputs[1]))


def _look_up(ctx: Context, gather: Operator, target: int) -> None:
    """[..., columns] of positions [...]; the operator takes a list of int32."""
    table, where = gather.inputs
    if ctx.tensor(where).dtype != ir.DataType.INT32:
        narrow = ctx.temporary(f"{ctx.tensor(target).name}/int32", ctx.tensor(where).shape, ir.DataType.INT32)
        types = {"inDataType": TENSOR_TYPES[ctx.tensor(where).dtype], "outDataType": TENSOR_TYPES[ir.DataType.INT32]}
        where = ctx.op("CAST", [where], [narrow], **types)
    dims, name = ctx.tensor(target).shape, ctx.tensor(target).name
    count = int(np.prod(dims[:-1], dtype=int))
    flat = ctx.reshape(where, ctx.temporary(f"{name}/positions", (count,), ir.DataType.INT32))
    rows = ctx.temporary(f"{name}/rows", (count, dims[-1]), ir.DataType.FLOAT)
    ctx.reshape(ctx.op("EMBEDDING_LOOKUP", [flat, _packed(ctx, table)], [rows]), target)


def _packed(ctx: Context, index: int) -> int:
    """The INT4 tensor of an int8 one: the first number of a byte is in its lower four bits."""
    tensor = ctx.tensor(index)
    assert tensor.data is not None
    halves = tensor.data.ravel().astype(np.int8).view(np.uint8) & 15
    halves = np.append(halves, np.zeros(len(halves) % 2, np.uint8))
    made = replace(tensor, dtype=ir.DataType.INT4, data=halves[::2] | halves[1::2] << 4)
    return ctx.buffer.add_tensor(made)
