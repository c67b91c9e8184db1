"""The operators that a plan may have: a record for each.

A record says what can be said without Numba, which reading a pack must not load. The other half of an operator is the
function in `kernels/` that prepares its calls; `@prepares` enters it under the record's kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from edgecompress_runtime import options as of
from edgecompress_runtime import shapes
from edgecompress_runtime.errors import MisfitError, RuntimeModelError
from edgecompress_runtime.options import Options, parsed
from edgecompress_runtime.plan import Operator, Plan, Tensor
from edgecompress_runtime.shapes import Inputs, Outputs, Shape

OptionsT = TypeVar("OptionsT", bound=Options)
FAULTS = (MisfitError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)  # of what a rule trips over


@dataclass(frozen=True)
class Record(Generic[OptionsT]):
    """kind: the operator's name, TFLite's where it has the operator. options: their type. shapes: the rule that checks
    its operands' types, sizes and numbers of scales, and gives the shapes of its outputs."""

    kind: str
    options: type[OptionsT]
    shapes: Callable[[Inputs, Outputs, OptionsT], Sequence[Shape]]


def _alike(
    options: type[OptionsT], rule: Callable[[Inputs, Outputs, OptionsT], Sequence[Shape]], *kinds: str
) -> list[Record[Any]]:
    return [Record(kind, options, rule) for kind in kinds]


_ROWS: list[Record[Any]] = [
    Record("CONV_2D", of.ConvolutionOptions, shapes.convolution),
    Record("DEPTHWISE_CONV_2D", of.DepthwiseOptions, shapes.depthwise),
    Record("TRANSPOSE_CONV", of.TransposeConvolutionOptions, shapes.transpose_convolution),
    Record("FULLY_CONNECTED", of.FullyConnectedOptions, shapes.fully_connected),
    Record("BATCH_MATMUL", of.BatchMatmulOptions, shapes.batch_matmul),
    *_alike(of.PoolOptions, shapes.pooling, "AVERAGE_POOL_2D", "MAX_POOL_2D"),
    *_alike(of.ReductionOptions, shapes.reduction, "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"),
    Record("ARG_MAX", of.ArgMaxOptions, shapes.arg_max),
    *_alike(of.SumOptions, shapes.binary, "ADD", "SUB"),
    *_alike(of.ActivationOptions, shapes.binary, "MUL", "DIV"),
    *_alike(Options, shapes.binary, "MAXIMUM", "MINIMUM", "POW", "PRELU", "LOGICAL_AND", "LOGICAL_OR"),
    *_alike(Options, shapes.binary, "EQUAL", "NOT_EQUAL", "GREATER", "LESS", "GREATER_EQUAL", "LESS_EQUAL"),
    Record("SELECT_V2", Options, shapes.select),
    Record("TABLE", Options, shapes.table),
    *_alike(Options, shapes.elementwise, "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "HARD_SWISH", "LOGISTIC"),
    *_alike(Options, shapes.elementwise, "ABS", "ELU", "EXP", "FLOOR", "LOG", "LOGICAL_NOT", "NEG", "RSQRT", "SQRT"),
    *_alike(Options, shapes.elementwise, "TANH", "QUANTIZE", "DEQUANTIZE"),
    Record("GELU", of.GeluOptions, shapes.elementwise),
    Record("LEAKY_RELU", of.LeakyReluOptions, shapes.elementwise),
    Record("CAST", of.CastOptions, shapes.elementwise),
    Record("SOFTMAX", of.SoftmaxOptions, shapes.softmax),
    Record("LOG_SOFTMAX", Options, shapes.softmax),
    Record("CONCATENATION", of.ConcatenationOptions, shapes.concatenation),
    *_alike(of.SplitOptions, shapes.split, "SPLIT", "SPLIT_V"),
    Record("SLICE", Options, shapes.slice_),
    Record("STRIDED_SLICE", of.StridedSliceOptions, shapes.strided_slice),
    Record("REVERSE_V2", Options, shapes.reverse),
    Record("TRANSPOSE", Options, shapes.transpose),
    Record("RESHAPE", of.ReshapeOptions, shapes.reshape),
    Record("BROADCAST_TO", Options, shapes.broadcast_to),
    Record("TILE", Options, shapes.tile),
    *_alike(Options, shapes.pad, "PAD", "PADV2"),
    Record("MIRROR_PAD", of.MirrorPadOptions, shapes.pad),
    Record("GATHER", of.GatherOptions, shapes.gather),
    Record("DEPTH_TO_SPACE", of.BlockOptions, shapes.depth_to_space),
    Record("SPACE_TO_DEPTH", of.BlockOptions, shapes.space_to_depth),
    *_alike(of.ResizeOptions, shapes.resize, "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
]
RECORDS: dict[str, Record[Any]] = {record.kind: record for record in _ROWS}


def options_of(kind: str, given: Mapping[str, Any]) -> Options:
    """An operator's options from fields under their names in TFLite's schema; none for a kind without a record. Raises
    MisfitError for what no such operator can have."""
    return parsed(RECORDS[kind].options, given) if kind in RECORDS else Options()


def check_plan(plan: Plan) -> None:
    """Raises RuntimeModelError naming the first operator whose tensors do not fit together."""
    for number, operator in enumerate(plan.operators):
        inputs = [None if i < 0 else plan.tensors[i] for i in operator.inputs]
        outputs = [plan.tensors[i] for i in operator.outputs]
        try:
            _check(operator, inputs, outputs)
        except FAULTS as error:
            reason = str(error) if isinstance(error, MisfitError) else f"malformed: {type(error).__name__}"
            raise RuntimeModelError(f"operator {number} ({operator.kind:.40}): {reason:.200}") from error


def _check(operator: Operator, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> None:
    if operator.kind not in RECORDS:
        return  # without a kernel either
    record = RECORDS[operator.kind]
    for tensor in (*inputs, *outputs):
        if tensor is not None and tensor.data is None and tensor.size < 1:
            raise MisfitError(f"tensor {tensor.name[:60]!r} has no elements")
        if tensor is not None and tensor.is_int8 and (np.abs(tensor.zero_point + 0.5) > 128).any():
            raise MisfitError(f"tensor {tensor.name[:60]!r} has a zero point outside of int8")
        if tensor is not None and tensor.is_int16 and (tensor.scale.size != 1 or tensor.zero_point.any()):
            raise MisfitError(f"tensor {tensor.name[:60]!r} is int16, with more than a scale and a zero point of 0")
    if any(t is None for t in inputs[:1]) or not inputs or not outputs:
        raise MisfitError("an operand is missing")
    if type(operator.options) is not record.options:
        raise MisfitError(f"expected {record.options.__name__}, found {type(operator.options).__name__}")
    expected = [tuple(shape) for shape in record.shapes(inputs, outputs, operator.options)]
    found = [tuple(t.shape) for t in outputs]
    if found != expected:
        raise MisfitError(f"expected outputs of shape {[list(s) for s in expected]}, found {[list(s) for s in found]}")
