"""Whether an operator's tensors fit together: kernels take their sizes from shapes and check nothing while they run.

RULES maps an operator's kind to the shapes that its outputs have to have, worked out from inputs and options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgecompress_runtime.errors import RuntimeModelError
from edgecompress_runtime.plan import Operator, Plan, Tensor

Shape = tuple[int, ...]
Rule = Callable[[Sequence[Any], Sequence[Tensor], Mapping[str, Any]], Sequence[Shape]]
RULES: dict[str, Rule] = {}
SAME = 0  # schema.fbs Padding
ACTIVATIONS = (0, 1, 2, 3)  # of schema.fbs ActivationFunctionType, those that kernels have
MOST = 1 << 20  # of an option: products with a size stay within 64 bits, and sizes within 32


class MisfitError(ValueError):
    """What does not fit."""


def check_plan(plan: Plan) -> None:
    """Raises RuntimeModelError naming the first operator whose tensors do not fit together."""
    for number, operator in enumerate(plan.operators):
        inputs = [None if i < 0 else plan.tensors[i] for i in operator.inputs]
        outputs = [plan.tensors[i] for i in operator.outputs]
        try:
            _check(operator, inputs, outputs)
        except (MisfitError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            reason = str(error) if isinstance(error, MisfitError) else f"malformed: {type(error).__name__}"
            raise RuntimeModelError(f"operator {number} ({operator.kind:.40}): {reason:.200}") from error


def _check(operator: Operator, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
    if operator.kind not in RULES:
        return  # without a kernel either
    for tensor in (*inputs, *outputs):
        if tensor is not None and tensor.data is None and tensor.size < 1:
            raise MisfitError(f"tensor {tensor.name[:60]!r} has no elements")
        if tensor is not None and tensor.is_int8 and (np.abs(tensor.zero_point + 0.5) > 128).any():
            raise MisfitError(f"tensor {tensor.name[:60]!r} has a zero point outside of int8")
    if (operator.options.get("fusedActivationFunction") or 0) not in ACTIVATIONS:
        raise MisfitError(f"activation {operator.options['fusedActivationFunction']}")
    if any(t is None for t in inputs[:1]) or not inputs or not outputs:
        raise MisfitError("an operand is missing")
    expected = RULES[operator.kind](inputs, outputs, operator.options)
    found = [tuple(t.shape) for t in outputs]
    if found != [tuple(shape) for shape in expected]:
        raise MisfitError(f"expected outputs of shape {[list(s) for s in expected]}, found {[list(s) for s in found]}")


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise MisfitError(reason)


def option(options: Mapping[str, Any], key: str, least: int = 1) -> int:
    value = options[key]
    require(type(value) is int and least <= value <= MOST, f"{key} is {value!r:.40}")
    return value


def numbers(tensor: Tensor) -> list[int]:
    """Of a constant operand."""
    require(tensor.data is not None and np.issubdtype(tensor.dtype, np.integer), f"{tensor.name[:60]!r} is no constant")
    assert tensor.data is not None
    return [int(n) for n in tensor.data.reshape(-1)]


def axis_of(value: int, rank: int) -> int:
    require(-rank <= value < rank, f"axis {value} of {rank}")
    return value % rank


def one_dtype(*tensors: Tensor) -> None:
    """Of operators that move elements."""
    require(len({t.dtype for t in tensors}) == 1, "expected one type of elements")


def window(scheme: int, size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Positions of a window."""
    span = (kernel - 1) * dilation + 1
    return -(-size // stride) if scheme == SAME else -(-(size - span + 1) // stride)


def windows(options: Mapping[str, Any], size: Shape, kernel: Sequence[int], dilated: bool = False) -> list[int]:
    strides = [option(options, key) for key in ("strideH", "strideW")]
    keys = ("dilationHFactor", "dilationWFactor") if dilated else ()
    dilations = [option(options, key) if options.get(key) else 1 for key in keys] or [1, 1]
    scheme = option(options, "padding", 0)
    return [window(scheme, *each) for each in zip(size, kernel, strides, dilations)]


def channels(inputs: Sequence[Any], w: Tensor, count: int) -> None:
    """A layer's weights have a scale or one for each output channel; its bias has an element for each."""
    require(w.scale.size in (0, 1, count), f"{w.scale.size} scales of {count} channels")
    bias = inputs[2] if len(inputs) > 2 else None
    require(bias is None or bias.size == count, "a bias of another size")
    if inputs[0].is_int8:
        require(w.is_int8 and w.scale.size > 0, "expected int8 weights with scales")
        require(bias is None or (bias.data is not None and bias.dtype == np.int32), "expected a constant int32 bias")


@rule(
    "ABS",
    "ELU",
    "EXP",
    "FLOOR",
    "GELU",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOG",
    "LOGICAL_NOT",
    "LOGISTIC",
    "NEG",
    "RELU",
    "RELU6",
    "RELU_0_TO_1",
    "RELU_N1_TO_1",
    "RSQRT",
    "SQRT",
    "TANH",
    "QUANTIZE",
    "DEQUANTIZE",
    "CAST",
)
def elementwise(inputs, outputs, options):
    return [inputs[0].shape]


@rule("TABLE")
def table(inputs, outputs, options):
    x, entries, (y,) = *inputs, outputs
    require(all(t.is_int8 for t in (x, entries, y)), "expected int8 operands")
    require(entries.data is not None and entries.shape == (256,), "expected a constant table of 256 entries")
    same = np.array_equal(entries.scale, y.scale) and np.array_equal(entries.zero_point, y.zero_point)
    require(same, "the table is quantized otherwise than the output")
    return [x.shape]


@rule("SOFTMAX", "LOG_SOFTMAX")
def softmax(inputs, outputs, options):
    require(len(inputs[0].shape) > 0, "a scalar")
    return [inputs[0].shape]


@rule("REVERSE_V2")
def reverse(inputs, outputs, options):
    one_dtype(inputs[0], outputs[0])
    for axis in numbers(inputs[1]):
        axis_of(axis, len(inputs[0].shape))
    return [inputs[0].shape]


@rule(
    "ADD",
    "SUB",
    "MUL",
    "DIV",
    "MAXIMUM",
    "MINIMUM",
    "POW",
    "PRELU",
    "EQUAL",
    "NOT_EQUAL",
    "GREATER",
    "LESS",
    "GREATER_EQUAL",
    "LESS_EQUAL",
    "LOGICAL_AND",
    "LOGICAL_OR",
)
def binary(inputs, outputs, options):
    a, b = inputs
    return [np.broadcast_shapes(a.shape, b.shape)]


@rule("SELECT_V2")
def select(inputs, outputs, options):
    condition, a, b = inputs
    one_dtype(a, b, outputs[0])
    return [np.broadcast_shapes(condition.shape, a.shape, b.shape)]


@rule("CONV_2D")
def convolution(inputs, outputs, options):
    x, w = inputs[:2]
    (n, *size, depth), (out, *kernel, inner) = x.shape, w.shape
    require(len(size) == 2 and len(kernel) == 2, "expected four dimensions")
    require(depth % inner == 0 and out % (depth // inner) == 0, f"{depth} channels by weights for {inner}")
    channels(inputs, w, out)
    return [(n, *windows(options, size, kernel, dilated=True), out)]


@rule("DEPTHWISE_CONV_2D")
def depthwise(inputs, outputs, options):
    x, w = inputs[:2]
    (n, *size, depth), (one, *kernel, out) = x.shape, w.shape
    require(len(size) == 2 and len(kernel) == 2 and one == 1, "expected four dimensions")
    require(out % depth == 0, f"{depth} channels to {out}")
    channels(inputs, w, out)
    return [(n, *windows(options, size, kernel, dilated=True), out)]


@rule("TRANSPOSE_CONV")
def transpose_convolution(inputs, outputs, options):
    _, w, x = inputs[:3]
    (n, *size, depth), (out, *kernel, inner) = x.shape, w.shape
    require(len(size) == 2 and len(kernel) == 2 and inner == depth, "expected four dimensions")
    channels([x, w, *inputs[3:]], w, out)
    (_, *grown, _) = outputs[0].shape
    require(windows(options, tuple(grown), kernel) == size, "sizes of the two sides")
    return [(n, *grown, out)]


@rule("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pooling(inputs, outputs, options):
    n, *size, depth = inputs[0].shape
    require(len(size) == 2, "expected four dimensions")
    kernel = [option(options, key) for key in ("filterHeight", "filterWidth")]
    return [(n, *windows(options, size, kernel), depth)]


@rule("FULLY_CONNECTED")
def fully_connected(inputs, outputs, options):
    x, w, (y,) = inputs[0], inputs[1], outputs
    units, depth = w.shape
    require(depth > 0 and x.size % depth == 0, f"{x.size} values in rows of {depth}")
    channels(inputs, w, units)
    require(y.shape[-1] == units and y.size == x.size // depth * units, f"{y.size} outputs")
    return [y.shape]


@rule("BATCH_MATMUL")
def batch_matmul(inputs, outputs, options):
    a, b = inputs
    (rows, depth), (inner, columns) = a.shape[-2:], b.shape[-2:]
    rows, depth = (depth, rows) if options.get("adjX") else (rows, depth)
    inner, columns = (columns, inner) if options.get("adjY") else (inner, columns)
    require(depth == inner, f"{depth} columns by {inner} rows")
    return [(*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), rows, columns)]


@rule("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
def reduction(inputs, outputs, options):
    x = inputs[0]
    axes = {axis_of(a, len(x.shape)) for a in numbers(inputs[1])}
    if options.get("keepDims"):
        return [tuple(1 if a in axes else n for a, n in enumerate(x.shape))]
    return [tuple(n for a, n in enumerate(x.shape) if a not in axes)]


@rule("ARG_MAX")
def arg_max(inputs, outputs, options):
    x = inputs[0]
    (axis,) = numbers(inputs[1])
    axis = axis_of(axis, len(x.shape))
    return [(*x.shape[:axis], *x.shape[axis + 1 :])]


@rule("CONCATENATION")
def concatenation(inputs, outputs, options):
    one_dtype(*inputs, *outputs)
    rank = len(inputs[0].shape)
    axis = axis_of(option(options, "axis", -8), rank)
    others = {(*t.shape[:axis], *t.shape[axis + 1 :]) for t in inputs}
    require(len(others) == 1 and all(len(t.shape) == rank for t in inputs), "sizes off the axis")
    x = inputs[0].shape
    return [(*x[:axis], sum(t.shape[axis] for t in inputs), *x[axis + 1 :])]


@rule("SPLIT", "SPLIT_V")
def split(inputs, outputs, options):
    x = max(inputs, key=lambda t: (t.data is None, t.size))
    axis = axis_of(numbers(inputs[0] if len(inputs) == 2 else inputs[2])[0], len(x.shape))
    require(x is inputs[1 if len(inputs) == 2 else 0], "expected a computed operand")
    one_dtype(x, *outputs)
    parts = [y.shape[axis] for y in outputs]
    require(sum(parts) == x.shape[axis], f"{parts} of {x.shape[axis]}")
    return [(*x.shape[:axis], part, *x.shape[axis + 1 :]) for part in parts]


@rule("SLICE")
def slice_(inputs, outputs, options):
    x, (y,) = inputs[0], outputs
    one_dtype(x, y)
    begin = numbers(inputs[1])
    require(len(begin) == len(x.shape) == len(y.shape), "ranks")
    require(all(0 <= b and b + k <= n for b, k, n in zip(begin, y.shape, x.shape)), "outside of the tensor")
    return [y.shape]


@rule("STRIDED_SLICE")
def strided_slice(inputs, outputs, options):
    x, begin, step, (y,) = inputs[0], numbers(inputs[1]), numbers(inputs[3]), outputs
    one_dtype(x, y)
    require(len(begin) == len(step) == len(x.shape) == len(y.shape), "ranks")
    for first, by, count, size in zip(begin, step, y.shape, x.shape):
        require(0 <= first < size and 0 <= first + (count - 1) * by < size, "outside of the tensor")
    return [y.shape]


@rule("TRANSPOSE")
def transpose(inputs, outputs, options):
    x, order = inputs[0], numbers(inputs[1])
    one_dtype(x, outputs[0])
    require(sorted(order) == list(range(len(x.shape))), f"{order} is no order of axes")
    return [tuple(x.shape[a] for a in order)]


@rule("RESHAPE")
def reshape(inputs, outputs, options):
    x, (y,) = inputs[0], outputs
    one_dtype(x, y)
    require(x.size == y.size, f"{x.size} elements to {y.size}")
    return [y.shape]


@rule("BROADCAST_TO")
def broadcast_to(inputs, outputs, options):
    x, (y,) = inputs[0], outputs
    one_dtype(x, y)
    return [np.broadcast_shapes(x.shape, y.shape)]


@rule("TILE")
def tile(inputs, outputs, options):
    x, times = inputs[0], numbers(inputs[1])
    one_dtype(x, outputs[0])
    require(len(times) == len(x.shape), "ranks")
    return [tuple(n * t for n, t in zip(x.shape, times))]


@rule("DEPTH_TO_SPACE")
def depth_to_space(inputs, outputs, options):
    (n, h, w, c), block = inputs[0].shape, option(options, "blockSize")
    one_dtype(inputs[0], outputs[0])
    require(c % block**2 == 0, f"{c} channels in blocks of {block}")
    return [(n, h * block, w * block, c // block**2)]


@rule("SPACE_TO_DEPTH")
def space_to_depth(inputs, outputs, options):
    (n, h, w, c), block = inputs[0].shape, option(options, "blockSize")
    one_dtype(inputs[0], outputs[0])
    require(h % block == 0 and w % block == 0, f"{h} x {w} in blocks of {block}")
    return [(n, h // block, w // block, c * block**2)]


@rule("PAD", "PADV2", "MIRROR_PAD")
def pad(inputs, outputs, options):
    x, amounts = inputs[0], np.reshape(numbers(inputs[1]), (-1, 2))
    one_dtype(x, outputs[0], *inputs[2:])
    require(len(amounts) == len(x.shape) and (amounts >= 0).all(), "amounts")
    if len(inputs) > 2:
        require(inputs[2].data is not None and inputs[2].size == 1, "expected one value")
    return [tuple(int(n + a + b) for n, (a, b) in zip(x.shape, amounts))]


@rule("GATHER")
def gather(inputs, outputs, options):
    x, indices = inputs[:2]
    one_dtype(x, outputs[0])
    require(np.issubdtype(indices.dtype, np.integer) and not options.get("batchDims"), "indices")
    axis = axis_of(options.get("axis") or 0, len(x.shape))
    if indices.data is not None:
        require(all(0 <= i < x.shape[axis] for i in numbers(indices)), "an index outside of the axis")
    return [(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])]


@rule("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(inputs, outputs, options):
    n, h, w, c = inputs[0].shape
    height, width = numbers(inputs[1])
    return [(n, height, width, c)]
