"""Which dtypes the builtin operators take beside floats and quantized integers, so that no file is written that no
interpreter loads. Found by loading one operator at a time in LiteRT 2.3 and in its reference kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from edgecompress.lowering.tensors import Operator, Tensor

COMMON = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.INT16}
SCALED = {ir.DataType.INT8, ir.DataType.INT16}
INT32, INT64, BOOL = {ir.DataType.INT32}, {ir.DataType.INT64}, {ir.DataType.BOOL}
INTEGERS = INT32 | INT64
MOVED = INTEGERS | BOOL

TAKES: dict[str, set[ir.DataType]] = {
    "ABS": INT32, "ADD": INTEGERS, "ARG_MAX": INT32, "BROADCAST_TO": MOVED, "CAST": MOVED, "CONCATENATION": MOVED,
    "CUMSUM": INTEGERS, "DIV": INT32, "EMBEDDING_LOOKUP": INT32,
    "FLOOR_MOD": INTEGERS, "REDUCE_PROD": INTEGERS, "SCATTER_ND": INTEGERS,
    "TOPK_V2": INTEGERS, "EQUAL": MOVED, "GATHER": MOVED, "GREATER": INTEGERS, "LESS": INTEGERS, "LOGICAL_AND": BOOL,
    "LOGICAL_NOT": BOOL, "LOGICAL_OR": BOOL,
    "MAXIMUM": INTEGERS, "MEAN": INTEGERS, "MINIMUM": INTEGERS, "MIRROR_PAD": MOVED, "MUL": INTEGERS, "NEG": INTEGERS,
    "PAD": MOVED, "PADV2": MOVED, "POW": INT32, "REDUCE_MAX": INTEGERS, "RESHAPE": MOVED, "REVERSE_V2": MOVED,
    "SELECT_V2": MOVED, "SLICE": MOVED, "SPLIT": INTEGERS, "SPLIT_V": INTEGERS, "STRIDED_SLICE": MOVED,
    "SUB": INTEGERS, "SUM": INTEGERS, "TILE": MOVED, "TRANSPOSE": MOVED,
}  # fmt: skip
DATA = {"SCATTER_ND": 1, "SELECT_V2": 1, "SPLIT": 1, "TRANSPOSE_CONV": 2}  # position of the data, where it is not 0


def faults(operators: Sequence[Operator], tensors: Sequence[Tensor]) -> Iterator[str]:
    """One line for each operator that LiteRT has no kernel for with the dtype that it is given."""
    for operator in operators:
        tensor = tensors[operator.inputs[DATA.get(operator.kind, 0)]]
        data = tensor.dtype
        plain = data in SCALED and tensor.quantization is None  # numbers of the model's own
        if plain or data not in COMMON | TAKES.get(operator.kind, set()):
            yield (
                f"{operator.origin}: LiteRT has no {operator.kind} on {data.name.lower()} values; cast them to "
                f"{'int32 or ' if TAKES.get(operator.kind, set()) >= INT32 else ''}float32 in front of this node"
            )
