"""Writes operators that TFLM lacks, on int8, at all, or with so many operands, with those that it has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import erf, pi, sqrt
from typing import cast

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import FlatBuffer
from edgecompress.lowering.table import table
from edgecompress.lowering.tensors import Operator

MOST_OPERANDS = 10  # of TFLM's CONCATENATION (concatenation.cc, kMaxInputNum)


def write_substitutes(buffer: FlatBuffer, available: Collection[str]) -> None:
    """Replaces operators that are not among the available ones, as far as there is a way; the others stay."""
    operators, buffer.operators = buffer.operators, []
    ctx = Context(buffer)
    for operator in operators:
        write = (LIMITED if operator.kind in available else SUBSTITUTES).get(operator.kind)
        ctx.origin = operator.origin
        if write is None or not write(ctx, operator):
            buffer.operators.append(operator)


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
        x = _concatenated(ctx, [x] * int(counts[axis]), target, axis)
    return bool(grown)


def _write_concatenation(ctx: Context, operator: Operator) -> bool:
    """Concatenations of concatenations."""
    if len(operator.inputs) <= MOST_OPERANDS:
        return False
    options = cast(schema.ConcatenationOptionsT, operator.options)
    _concatenated(ctx, list(operator.inputs), operator.outputs[0], options.axis)
    return True


def _concatenated(ctx: Context, parts: list[int], target: int, axis: int) -> int:
    """Returns target, of as many tensors as are wanted."""
    level = 0
    while len(parts) > MOST_OPERANDS:
        level, groups = level + 1, [parts[i : i + MOST_OPERANDS] for i in range(0, len(parts), MOST_OPERANDS)]
        parts = []
        for index, group in enumerate(groups):
            dims = list(ctx.tensor(target).shape)
            dims[axis] = sum(ctx.tensor(part).shape[axis] for part in group)
            joined = ctx.like(target, f"{ctx.tensor(target).name}/level_{level}/{index}", tuple(dims))
            parts.append(ctx.op("CONCATENATION", group, [joined], axis=axis) if len(group) > 1 else group[0])
    return ctx.op("CONCATENATION", parts, [target], axis=axis)


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
LIMITED = {"CONCATENATION": _write_concatenation}
