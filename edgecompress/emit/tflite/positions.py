"""Positions in a file: of which type they are, and that those below 0 count from the end, as in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES, FlatBuffer
from edgecompress.lowering.tensors import Operator

MOVES = {"RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE"}  # their first input
COMPUTES = {"ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM"}
READS = {"CAST", "GATHER"}  # takes positions as int32 and as int64


def narrow_positions(buffer: FlatBuffer) -> None:
    """Positions that ARG_MAX finds or that are inputs of the file become int32, all that TFLM has, where int64 is not
    needed: in outputs of the file, and where they pick."""
    found = {o.outputs[0]: o for o in buffer.operators if o.kind == "ARG_MAX"}
    computed = {tensor for o in buffer.operators for tensor in o.outputs}
    given = [i for i, t in enumerate(buffer.tensors) if t.data is None and i not in computed]
    for source in [*found, *given]:
        if buffer.tensors[source].dtype == ir.DataType.INT64 and _narrow_from(buffer, source) and source in found:
            cast(schema.ArgMaxOptionsT, found[source].options).outputType = TENSOR_TYPES[ir.DataType.INT32]


def _narrow_from(buffer: FlatBuffer, source: int) -> bool:
    """The tensor and what is computed of it as int32, and whether that is possible."""
    computed = _computed_of(buffer, source)
    readers = [o for o in buffer.operators if computed.intersection(o.inputs)]
    others = {i for o in readers if o.kind in COMPUTES for i in o.inputs} - computed
    if {o.kind for o in readers} - MOVES - COMPUTES - READS or not all(_fits(buffer, i) for i in others):
        return False
    for index in computed:
        buffer.tensors[index] = replace(buffer.tensors[index], dtype=ir.DataType.INT32)
    for reader in readers:
        if reader.kind in COMPUTES:
            inputs = tuple(i if i in computed else _narrow(buffer, i) for i in reader.inputs)
            buffer.operators[buffer.operators.index(reader)] = replace(reader, inputs=inputs)
        elif reader.kind == "CAST":
            cast(schema.CastOptionsT, reader.options).inDataType = TENSOR_TYPES[ir.DataType.INT32]
    return True


def count_from_end(buffer: FlatBuffer) -> None:
    """Writes p - n max(min(p, 0), -1) for each computed position p of a GATHER along n positions: LiteRT refuses to run
    what is below 0, and TFLM reads there. Both have these operators for positions; no ARG_MAX needs them."""
    operators, buffer.operators = buffer.operators, []
    ctx = Context(buffer)
    wrapped: dict[tuple[int, int], int] = {}
    for operator in operators:
        if operator.kind == "GATHER" and not _starts_at_zero(operators, buffer, operator.inputs[1]):
            x, where = operator.inputs
            ctx.origin = operator.origin
            count = ctx.tensor(x).shape[cast(schema.GatherOptionsT, operator.options).axis]
            if (where, count) not in wrapped:
                wrapped[where, count] = _wrap(ctx, where, count)
            operator = replace(operator, inputs=(x, wrapped[where, count]))
        buffer.operators.append(operator)


def _wrap(ctx: Context, where: int, count: int) -> int:
    tensor = ctx.tensor(where)

    def number(value: int) -> int:
        return ctx.constant(np.array(value, tensor.dtype.numpy()))

    def result(name: str) -> int:
        return ctx.like(where, f"{tensor.name}/{name}", tensor.shape)

    below = ctx.op("MINIMUM", [where, number(0)], [result("below")])
    turns = ctx.op("MAXIMUM", [below, number(-1)], [result("turns")])
    moved = ctx.op("MUL", [turns, number(-count)], [result("moved")], fusedActivationFunction=0)
    return ctx.op("ADD", [where, moved], [result("from_start")], fusedActivationFunction=0)


def _starts_at_zero(operators: Sequence[Operator], buffer: FlatBuffer, index: int) -> bool:
    """Whether the positions are constants, which are counted from the start, or those of maxima."""
    if buffer.tensors[index].data is not None:
        return True
    producer = next((o for o in operators if index in o.outputs), None)
    if producer is None or producer.kind not in MOVES | {"CAST", "ARG_MAX"}:
        return False
    return producer.kind == "ARG_MAX" or _starts_at_zero(operators, buffer, producer.inputs[0])


def _computed_of(buffer: FlatBuffer, result: int) -> set[int]:
    """The tensor and those that are computed of it as positions."""
    computed = {result}
    for operator in buffer.operators:
        first = operator.inputs[:1] if operator.kind in MOVES else operator.inputs if operator.kind in COMPUTES else ()
        if computed.intersection(first):
            computed.add(operator.outputs[0])
    return computed


def _fits(buffer: FlatBuffer, index: int) -> bool:
    data = buffer.tensors[index].data
    return data is not None and np.array_equal(data, data.astype(np.int32))


def _narrow(buffer: FlatBuffer, index: int) -> int:
    tensor = buffer.tensors[index]
    assert tensor.data is not None
    return buffer.add_tensor(replace(tensor, dtype=ir.DataType.INT32, data=tensor.data.astype(np.int32)))
