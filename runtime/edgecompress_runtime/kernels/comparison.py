"""Comparisons and logic on two operands, broadcast; the result is one byte an element, 0 or 1."""

from __future__ import annotations

from numba import njit

from edgecompress_runtime.kernels.arithmetic import Array, Number, Values, i32
from edgecompress_runtime.kernels.binary import geometry
from edgecompress_runtime.kernels.registry import Call, Inputs, Outputs, Prepare, call, prepares
from edgecompress_runtime.kernels.strides import offset, row_count
from edgecompress_runtime.options import Options

KINDS = (
    "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "LOGICAL_AND", "LOGICAL_OR",
)  # fmt: skip
EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, LOGICAL_AND, LOGICAL_OR = range(8)


@njit(inline="always")
def compare(kind: Number, a: Number, b: Number) -> Number:
    """Whether a and b are related by `kind`, one of the numbers above; in logic any number but zero is true."""
    # A chain for the same reason as in `binary.arithmetic`.
    if kind == EQUAL:
        return a == b
    if kind == NOT_EQUAL:
        return a != b
    if kind == LESS:
        return a < b
    if kind == LESS_EQUAL:
        return a <= b
    if kind == GREATER:
        return a > b
    if kind == GREATER_EQUAL:
        return a >= b
    if kind == LOGICAL_AND:
        return a != 0 and b != 0
    return a != 0 or b != 0


def comparison(a: Array, b: Array, y: Array, geometry: Values, kind: Number) -> None:
    """y is one byte an element, 0 or 1."""
    dims, a_strides, b_strides = geometry
    for row in range(row_count(dims)):
        a_row, b_row, y_row = offset(row, dims, a_strides), offset(row, dims, b_strides), i32(row * dims[5])
        for i in range(dims[5]):
            value = compare(kind, a[i32(a_row + i * a_strides[5])], b[i32(b_row + i * b_strides[5])])
            y[i32(y_row + i)] = value


def _prepare(kind: int) -> Prepare:
    def prepare(inputs: Inputs, outputs: Outputs, options: Options) -> list[Call]:
        a, b, (y,) = inputs[0], inputs[1], outputs
        return [call(comparison, a, b, y, geometry(a, b, y), kind)]

    return prepare


for _kind, _name in enumerate(KINDS):
    prepares(_name)(_prepare(_kind))
