"""Writes operators that TensorFlow Lite Micro lacks, on int8 or at all, with those that it has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from math import erf, pi, sqrt
from typing import cast

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES, FlatBuffer
from edgecompress.lowering.table import table
from edgecompress.lowering.tensors import Operator

FOLLOWS_TYPE = {"CAST", "GATHER", "RESHAPE"}  # operators that take positions as int32 and as int64


def write_substitutes(buffer: FlatBuffer, available: Collection[str]) -> None:
    """Replaces operators that are not among the available ones, as far as there is a way; the others stay."""
    operators, buffer.operators = buffer.operators, []
    ctx = Context(buffer)
    for operator in operators:
        write = None if operator.kind in available else SUBSTITUTES.get(operator.kind)
        ctx.origin = operator.origin
        if write is None or not write(ctx, operator):
            buffer.operators.append(operator)


def narrow_positions(buffer: FlatBuffer) -> None:
    """ARG_MAX gives int32, all that TFLM has, where int64 is not needed: in outputs of the file, and as positions."""
    for operator in buffer.operators:
        result = operator.outputs[0]
        if operator.kind != "ARG_MAX" or buffer.tensors[result].dtype != ir.DataType.INT64:
            continue
        followed = _followed(buffer, result)
        readers = {o.kind for o in buffer.operators if followed.intersection(o.inputs)}
        if not readers <= FOLLOWS_TYPE:
            continue
        for tensor in followed:
            buffer.tensors[tensor] = replace(buffer.tensors[tensor], dtype=ir.DataType.INT32)
        cast(schema.ArgMaxOptionsT, operator.options).outputType = TENSOR_TYPES[ir.DataType.INT32]
        for reader in buffer.operators:
            if reader.kind == "CAST" and reader.inputs[0] in followed:
                cast(schema.CastOptionsT, reader.options).inDataType = TENSOR_TYPES[ir.DataType.INT32]


def _followed(buffer: FlatBuffer, result: int) -> set[int]:
    """The tensor and those that are made of it by RESHAPE."""
    followed = {result}
    for operator in buffer.operators:
        if operator.kind == "RESHAPE" and operator.inputs[0] in followed:
            followed.add(operator.outputs[0])
    return followed


def _write_table(ctx: Context, operator: Operator) -> bool:
    (x,), (y,) = operator.inputs, operator.outputs
    source, target = ctx.tensor(x), ctx.tensor(y)
    if source.dtype != ir.DataType.INT8 or source.quantization is None or target.quantization is None:
        return False
    entries = table(FUNCTIONS[operator.kind](operator), source.quantization, target.quantization)
    ctx.op("TABLE", [x, ctx.constant(entries, target.quantization, f"{target.name}/table")], [y])
    return True


def _write_tile(ctx: Context, operator: Operator) -> bool:
    """One CONCATENATION of copies along each axis that grows."""
    (x, multiples), (y,) = operator.inputs, operator.outputs
    counts = ctx.tensor(multiples).data
    if counts is None:
        return False
    grown = [axis for axis, count in enumerate(counts.tolist()) if count > 1]
    dims = list(ctx.tensor(x).shape)
    for axis in grown:
        dims[axis] *= int(counts[axis])
        last = axis == grown[-1]
        target = y if last else ctx.like(y, f"{ctx.tensor(y).name}/axis_{axis}", tuple(dims))
        x = ctx.op("CONCATENATION", [x] * int(counts[axis]), [target], axis=axis)
    return bool(grown)


def _gelu(operator: Operator) -> Callable[[np.ndarray], np.ndarray]:
    if getattr(operator.options, "approximate", False):
        return lambda x: 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
    return lambda x: 0.5 * x * (1 + np.vectorize(erf, otypes=[np.float64])(x / sqrt(2)))


FUNCTIONS: dict[str, Callable[[Operator], Callable[[np.ndarray], np.ndarray]]] = {
    "EXP": lambda operator: np.exp,
    "GELU": _gelu,
}
SUBSTITUTES: dict[str, Callable[[Context, Operator], bool]] = {
    **dict.fromkeys(FUNCTIONS, _write_table),
    "TILE": _write_tile,
}
