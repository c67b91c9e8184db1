"""Writes TABLE, which TFLite does not have, as operators that all of its runtimes have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES, FlatBuffer

OFFSET = 128  # of the first entry, for the stored number -128


def write_look_ups(buffer: FlatBuffer) -> None:
    """Each TABLE of the buffer becomes CAST, ADD and GATHER: table[int32(x) + 128]."""
    operators, buffer.operators = buffer.operators, []
    ctx = Context(buffer)
    for operator in operators:
        if operator.kind != "TABLE":
            buffer.operators.append(operator)
            continue
        ctx.origin = operator.origin
        (x, table), (y,) = operator.inputs, operator.outputs
        source, target = ctx.tensor(x), ctx.tensor(y)
        wide = ctx.temporary(f"{target.name}/wide", source.shape, ir.DataType.INT32)
        position = ctx.temporary(f"{target.name}/position", source.shape, ir.DataType.INT32)
        ctx.op("CAST", [x], [wide], inDataType=TENSOR_TYPES[source.dtype], outDataType=TENSOR_TYPES[ir.DataType.INT32])
        ctx.op("ADD", [wide, ctx.constant(np.array(OFFSET, np.int32))], [position])
        ctx.op("GATHER", [table, position], [y], axis=0)
