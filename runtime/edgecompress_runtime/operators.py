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
from edgecompress_runtime import types_of_operands as types
from edgecompress_runtime.errors import MisfitError, RuntimeModelError
from edgecompress_runtime.options import Options, parsed
from edgecompress_runtime.plan import EXIT, Operator, Plan, Tensor
from edgecompress_runtime.shapes import Inputs, Outputs, Shape, no_macs

OptionsT = TypeVar("OptionsT", bound=Options)
FAULTS = (MisfitError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)  # of what a rule trips over


@dataclass(frozen=True)
class Record(Generic[OptionsT]):
    """kind: the operator's name, TFLite's where it has the operator. options: their type. types: the rule that checks
    the elements, scales and zero points of its operands and outputs. shapes: the rule that checks its operands' sizes,
    and gives the shapes of its outputs. macs: how many multiply-accumulates it takes."""

    kind: str
    options: type[OptionsT]
    types: types.Rule
    shapes: Callable[[Inputs, Outputs, OptionsT], Sequence[Shape]]
    macs: Callable[[Inputs, Outputs, OptionsT], int] = no_macs


def _alike(
    options: type[OptionsT],
    elements: types.Rule,
    rule: Callable[[Inputs, Outputs, OptionsT], Sequence[Shape]],
    *kinds: str,
) -> list[Record[Any]]:
    return [Record(kind, options, elements, rule) for kind in kinds]


_SUMS = types.arithmetic, shapes.binary
_MOVED = types.moved
_SOFTMAX, _LOG_SOFTMAX = types.probabilities(1 / 256, -128), types.probabilities(16 / 256, 127)
_ROWS: list[Record[Any]] = [
    Record("CONV_2D", of.ConvolutionOptions, types.layer(0), shapes.convolution, shapes.macs_by_output),
    Record("DEPTHWISE_CONV_2D", of.DepthwiseOptions, types.layer(3), shapes.depthwise, shapes.depthwise_macs),
    Record(
        "TRANSPOSE_CONV",
        of.TransposeConvolutionOptions,
        types.layer(0, x=2, bias=3),
        shapes.transpose_convolution,
        shapes.macs_by_input,
    ),
    Record(
        "FULLY_CONNECTED",
        of.FullyConnectedOptions,
        types.layer(0, centred=False),
        shapes.fully_connected,
        shapes.macs_by_output,
    ),
    Record("BATCH_MATMUL", of.BatchMatmulOptions, types.products, shapes.batch_matmul, shapes.matmul_macs),
    *_alike(of.PoolOptions, types.averaged, shapes.pooling, "AVERAGE_POOL_2D", "MAX_POOL_2D"),
    *_alike(of.ReductionOptions, types.summed, shapes.reduction, "MEAN", "SUM"),
    *_alike(of.ReductionOptions, types.picked, shapes.reduction, "REDUCE_MAX", "REDUCE_MIN"),
    Record("CUMSUM", of.CumulativeOptions, types.accumulated, shapes.cumulative),
    Record("ARG_MAX", of.ArgMaxOptions, types.placed, shapes.arg_max),
    *_alike(of.SumOptions, *_SUMS, "ADD", "SUB"),
    Record("MUL", of.ActivationOptions, *_SUMS),
    Record("DIV", of.ActivationOptions, types.fractions, shapes.binary),
    *_alike(Options, types.extremes, shapes.binary, "MAXIMUM", "MINIMUM"),
    Record("POW", Options, types.fractions, shapes.binary),
    Record("PRELU", Options, types.sloped, shapes.binary),
    *_alike(Options, types.logic, shapes.binary, "LOGICAL_AND", "LOGICAL_OR"),
    *_alike(Options, types.compared, shapes.binary, "EQUAL", "NOT_EQUAL", "GREATER", "LESS"),
    *_alike(Options, types.compared, shapes.binary, "GREATER_EQUAL", "LESS_EQUAL"),
    Record("SELECT_V2", Options, types.chosen, shapes.select),
    Record("TABLE", Options, types.looked_up, shapes.table),
    *_alike(Options, types.pointwise, shapes.elementwise, "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1"),
    *_alike(Options, types.pointwise, shapes.elementwise, "HARD_SWISH", "LOGISTIC", "ELU", "EXP", "FLOOR", "LOG"),
    *_alike(Options, types.pointwise, shapes.elementwise, "RSQRT", "SQRT", "TANH"),
    *_alike(Options, types.signed, shapes.elementwise, "ABS", "NEG"),
    Record("LOGICAL_NOT", Options, types.negated, shapes.elementwise),
    Record("QUANTIZE", Options, types.quantized, shapes.elementwise),
    Record("DEQUANTIZE", Options, types.dequantized, shapes.elementwise),
    Record("GELU", of.GeluOptions, types.pointwise, shapes.elementwise),
    Record("LEAKY_RELU", of.LeakyReluOptions, types.pointwise, shapes.elementwise),
    Record("CAST", of.CastOptions, types.converted, shapes.elementwise),
    Record("SOFTMAX", of.SoftmaxOptions, _SOFTMAX, shapes.softmax),
    Record("LOG_SOFTMAX", Options, _LOG_SOFTMAX, shapes.softmax),
    Record("CONCATENATION", of.ConcatenationOptions, types.joined, shapes.concatenation),
    *_alike(of.SplitOptions, types.parts, shapes.split, "SPLIT", "SPLIT_V"),
    Record("SLICE", Options, _MOVED, shapes.slice_),
    Record("STRIDED_SLICE", of.StridedSliceOptions, _MOVED, shapes.strided_slice),
    Record("REVERSE_V2", Options, _MOVED, shapes.reverse),
    Record("TRANSPOSE", Options, _MOVED, shapes.transpose),
    Record("RESHAPE", of.ReshapeOptions, _MOVED, shapes.reshape),
    Record("BROADCAST_TO", Options, _MOVED, shapes.broadcast_to),
    Record("TILE", Options, _MOVED, shapes.tile),
    *_alike(Options, types.padded, shapes.pad, "PAD", "PADV2"),
    Record("MIRROR_PAD", of.MirrorPadOptions, _MOVED, shapes.pad),
    Record("GATHER", of.GatherOptions, types.gathered, shapes.gather),
    Record("DEPTH_TO_SPACE", of.BlockOptions, _MOVED, shapes.depth_to_space),
    Record("SPACE_TO_DEPTH", of.BlockOptions, _MOVED, shapes.space_to_depth),
    Record("RESIZE_BILINEAR", of.ResizeOptions, types.averaged, shapes.resize),
    Record("RESIZE_NEAREST_NEIGHBOR", of.ResizeOptions, _MOVED, shapes.resize),
    Record(EXIT, of.ExitOptions, types.left, shapes.leave),
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
            if operator.kind == EXIT:
                _check_exit(plan, operator)
        except FAULTS as error:
            reason = str(error) if isinstance(error, MisfitError) else f"malformed: {type(error).__name__}"
            writes = f", which writes {outputs[0].name[:60]!r}" if outputs else ""
            raise RuntimeModelError(f"operator {number} ({operator.kind:.40}){writes}: {reason:.250}") from error
    try:
        _check_states(plan)
    except MisfitError as error:
        raise RuntimeModelError(f"states: {error}") from error


def _check_states(plan: Plan) -> None:
    """What is fed back is like what it becomes, and is so once."""
    if len({i for i, _ in plan.states}) < len(plan.states) or len({o for _, o in plan.states}) < len(plan.states):
        raise MisfitError("an input or an output is in two of them")
    if plan.states and any(operator.kind == EXIT for operator in plan.operators):
        raise MisfitError("a plan that ends early can't keep any")
    for place, source in plan.states:
        before, after = plan.tensors[plan.inputs[place]], plan.tensors[plan.outputs[source]]
        types.alike(before, after)
        if before.shape != after.shape:
            expected, found = list(before.shape), list(after.shape)
            raise MisfitError(
                f"expected {after.name[:60]!r} to have the shape {expected} of {before.name[:60]!r}, found {found}"
            )


def _check(operator: Operator, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> None:
    if operator.kind not in RECORDS:
        return  # without a kernel either
    record = RECORDS[operator.kind]
    for tensor in (*inputs, *outputs):
        if tensor is not None:
            _has_elements(tensor)
            types.zero_points(tensor)
    if any(t is None for t in inputs[:1]) or not inputs or not outputs:
        raise MisfitError("an operand is missing")
    if type(operator.options) is not record.options:
        raise MisfitError(f"expected {record.options.__name__}, found {type(operator.options).__name__}")
    record.types(inputs, outputs)
    expected = [tuple(shape) for shape in record.shapes(inputs, outputs, operator.options)]
    found = [tuple(t.shape) for t in outputs]
    if found != expected:
        raise MisfitError(f"expected outputs of shape {[list(s) for s in expected]}, found {[list(s) for s in found]}")


def _check_exit(plan: Plan, operator: Operator) -> None:
    """What it gives in place of the plan's outputs is like them, and none of them."""
    given, outputs = operator.inputs[1:], plan.outputs
    if len(given) != len(outputs):
        raise MisfitError(f"expected a value for each of the plan's {len(outputs)} outputs, found {len(given)}")
    for index, output in zip(given, outputs):
        value, replaced = plan.tensors[index], plan.tensors[output]
        if index in outputs and value.data is None:
            raise MisfitError(f"{value.name[:60]!r} is an output of the plan, which an exit can't give")
        types.alike(replaced, value)
        if value.shape != replaced.shape:
            expected, found = list(replaced.shape), list(value.shape)
            raise MisfitError(f"expected {value.name[:60]!r} to have the output's shape {expected}, found {found}")


def _has_elements(tensor: Tensor) -> None:
    """Only a list of numbers, such as axes, may be empty."""
    listed = tensor.data is not None and len(tensor.shape) == 1 and np.issubdtype(tensor.dtype, np.integer)
    if tensor.size < 1 and not listed:
        raise MisfitError(f"tensor {tensor.name[:60]!r} has no elements")
