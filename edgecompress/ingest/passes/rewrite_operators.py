"""Operators that are another operator, or a few, under a different name: a table from one to the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgecompress.graph.batch_axes import batch_axes
from edgecompress.graph.fusion import constant
from edgecompress.graph.nodes import argument, arguments, integer, optional_parameter
from edgecompress.ingest.passes.edit import Edit, NodePass, input_or_none, static_shape

Rewrite = Callable[[ir.Node, Edit], bool]
SIGNED = frozenset((ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL))  # what has an opposite


class RewriteOperators(NodePass):
    """Applies REWRITES to every node that has an entry."""

    @property
    def operators(self) -> frozenset[str]:  # type: ignore[override]
        """Those that the table has."""
        return frozenset(REWRITES)

    def rewrite(self, node: ir.Node, edit: Edit) -> bool:
        """Changes the node as the table says; returns whether anything changed."""
        return REWRITES[node.op_type](node, edit)


def _chain(op_type: str) -> Rewrite:
    """Min, Max, Sum of any number of values: one, or pairs from the left."""

    def rewrite(node: ir.Node, edit: Edit) -> bool:
        first, *rest = arguments(node)
        if node.op_type == op_type and len(rest) == 1:
            return False
        if not rest:
            edit.substitute(node, first)
            return True
        for value in rest[:-1]:
            first = edit.insert(node, op_type, [first, value])
        edit.replace(node, op_type, [first, rest[-1]])
        return True

    return rewrite


def _mean(node: ir.Node, edit: Edit) -> bool:
    """Mean(a, b, ..) = Sum(a, b, ..) / count."""
    total = edit.insert(node, "Sum", node.inputs, shape=node.outputs[0].shape)
    added = total.producer()
    assert added is not None
    edit.replace(node, "Mul", [total, edit.constant("count", np.float32(1 / len(node.inputs)))])
    return _chain("Add")(added, edit)


def _not(op_type: str) -> Rewrite:
    """a >= b is not (a < b); no NaN is compared here."""

    def rewrite(node: ir.Node, edit: Edit) -> bool:
        edit.replace(node, "Not", [edit.insert(node, op_type, node.inputs, dtype=ir.DataType.BOOL)])
        return True

    return rewrite


def _power(node: ir.Node, edit: Edit) -> bool:
    """Small exponents have operators of their own, which are exact and quantize well."""
    if _with_one_dtype(node, edit):
        return True
    x, exponent = argument(node, 0), optional_parameter(node, 1)
    if exponent is None or exponent.size != 1 or x.dtype != ir.DataType.FLOAT or not _keeps_rank(x, exponent):
        return False
    value = float(exponent.reshape(()))
    if value == 1.0:
        edit.substitute(node, x)
    elif value == 2.0:
        edit.replace(node, "Mul", [x, x])
    elif value == 3.0:
        edit.replace(node, "Mul", [edit.insert(node, "Mul", [x, x]), x])
    elif value == 0.5:
        edit.replace(node, "Sqrt", [x])
    elif value == -0.5:
        edit.replace(node, "Reciprocal", [edit.insert(node, "Sqrt", [x])])
    elif value == -1.0:
        edit.replace(node, "Reciprocal", [x])
    else:
        return False
    return True


def _with_one_dtype(node: ir.Node, edit: Edit) -> bool:
    """An exponent of another type than the base: both are float32, and the result has the base's type again."""
    if argument(node, 0).dtype == argument(node, 1).dtype:
        return False
    operands = [_cast_to(node, edit, v, ir.DataType.FLOAT) for v in arguments(node)]
    if node.outputs[0].dtype == ir.DataType.FLOAT:
        edit.replace(node, "Pow", operands)
    else:
        power = edit.insert(node, "Pow", operands, shape=node.outputs[0].shape, dtype=ir.DataType.FLOAT)
        edit.replace(node, "Cast", [power], {"to": int(node.outputs[0].dtype or ir.DataType.FLOAT)})
    return True


def _cast_to(node: ir.Node, edit: Edit, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The value in another type, in front of the node."""
    array = constant(value)
    if value.dtype == dtype:
        return value
    if array is not None:
        return edit.constant(value.name, array.astype(dtype.numpy()))
    return edit.insert(node, "Cast", [value], {"to": int(dtype)}, shape=value.shape, dtype=dtype)


def _divide(node: ir.Node, edit: Edit) -> bool:
    """x / constant = x * (1 / constant); 1 / x = Reciprocal(x)."""
    a, b = arguments(node)
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    numerator, divisor = constant(a), constant(b)
    if divisor is not None and numerator is None:
        with np.errstate(divide="ignore", over="ignore"):
            factor = (1.0 / divisor.astype(np.float64)).astype(np.float32)
        if not np.isfinite(factor).all():
            return False
        edit.replace(node, "Mul", [a, edit.constant(f"{b.name}/reciprocal", factor)])
        return True
    if numerator is not None and numerator.size == 1 and numerator.reshape(()) == 1.0 and _keeps_rank(b, numerator):
        edit.replace(node, "Reciprocal", [b])
        return True
    return False


def _keeps_rank(x: ir.Value, scalar: np.ndarray) -> bool:
    return x.shape is not None and scalar.ndim <= len(x.shape)


def _dropout(node: ir.Node, edit: Edit) -> bool:
    """Nothing, outside training; a mask that someone reads is all True."""
    training = optional_parameter(node, 2)
    shape = static_shape(node.inputs[0])
    if (input_or_none(node, 2) is not None and (training is None or training.any())) or shape is None:
        return False
    if len(node.outputs) > 1 and node.outputs[1].uses():
        node.outputs[1].replace_all_uses_with(edit.constant("mask", np.ones(shape, bool)))
    edit.substitute(node, argument(node, 0))
    return True


def _reduce_min(node: ir.Node, edit: Edit) -> bool:
    """min(x) = -max(-x), or not max(not x)."""
    attributes, x = {k: a.value for k, a in node.attributes.items()}, argument(node, 0)
    if x.dtype not in SIGNED:
        return False
    opposite = "Not" if x.dtype == ir.DataType.BOOL else "Neg"
    turned = edit.insert(node, opposite, [x], shape=x.shape, dtype=x.dtype)
    largest = edit.insert(node, "ReduceMax", [turned, *node.inputs[1:]], attributes, shape=node.outputs[0].shape)
    producer = largest.producer()
    edit.replace(node, opposite, [largest])
    assert producer is not None
    _reduce_max(producer, edit)
    return True


def _reduce_max(node: ir.Node, edit: Edit) -> bool:
    """Of booleans: LiteRT has no kernel, so they are numbers in between."""
    x = argument(node, 0)
    if x.dtype != ir.DataType.BOOL:
        return False
    attributes = {k: a.value for k, a in node.attributes.items()}
    number = _cast_to(node, edit, x, ir.DataType.INT32)
    reduced = [number, *node.inputs[1:]]
    largest = edit.insert(node, "ReduceMax", reduced, attributes, shape=node.outputs[0].shape, dtype=ir.DataType.INT32)
    edit.replace(node, "Cast", [largest], {"to": int(ir.DataType.BOOL)})
    return True


def _arg_min(node: ir.Node, edit: Edit) -> bool:
    x = argument(node, 0)
    if x.dtype not in SIGNED:
        return False
    negated = edit.insert(node, "Neg", [x], shape=x.shape, dtype=x.dtype)
    attributes = {k: a.value for k, a in node.attributes.items()}
    largest = edit.replace(node, "ArgMax", [negated], attributes).producer()
    assert largest is not None
    _arg_max(largest, edit)
    return True


def _arg_max(node: ir.Node, edit: Edit) -> bool:
    """The last of equal values is the first of the reversed ones, whose index counts from the other end."""
    x, shape = argument(node, 0), static_shape(node.inputs[0])
    attributes = {k: a.value for k, a in node.attributes.items()}
    if not attributes.pop("select_last_index", 0) or shape is None:
        return False
    axis = node.attributes.get_int("axis", 0) % len(shape)
    least, step = np.array([np.iinfo(np.int64).min]), np.array([-1])
    bounds = [edit.constant(f"{x.name}/{k}", np.array(v, np.int64)) for k, v in enumerate(([-1], least, [axis], step))]
    turned = edit.insert(node, "Slice", [x, *bounds], shape=x.shape, dtype=x.dtype)
    index = edit.insert(node, "ArgMax", [turned], attributes, shape=node.outputs[0].shape, dtype=ir.DataType.INT64)
    last = edit.constant(f"{x.name}/last", np.array(shape[axis] - 1, np.int64))
    edit.replace(node, "Sub", [last, index])
    return True


def _cast(node: ir.Node, edit: Edit) -> bool:
    """Gone when it changes nothing."""
    x = argument(node, 0)
    if x.dtype is None or x.dtype != node.attributes.get_int("to"):
        return False
    edit.substitute(node, x)
    return True


def _same_shape(node: ir.Node, edit: Edit) -> bool:
    """Expand, Tile, Slice, Pad that give the shape they get: gone."""
    shape = static_shape(node.inputs[0])
    if shape is None or shape != static_shape(node.outputs[0]):
        return False
    if node.op_type == "Slice" and _reverses(node):
        return False
    if node.op_type == "Pad":
        amounts = optional_parameter(node, 1)
        if amounts is None or amounts.any():
            return False
    edit.substitute(node, argument(node, 0))
    return True


def _reverses(node: ir.Node) -> bool:
    steps = optional_parameter(node, 4)
    return input_or_none(node, 4) is not None and (steps is None or bool((steps < 0).any()))


def _add(node: ir.Node, edit: Edit) -> bool:
    """Zeros change nothing: the mask of an Attention that has none."""
    for x, other in zip(arguments(node), reversed(arguments(node))):
        zeros = constant(other)
        if zeros is not None and not zeros.any() and static_shape(x) == static_shape(node.outputs[0]) is not None:
            edit.substitute(node, x)
            return True
    return False


def _where(node: ir.Node, edit: Edit) -> bool:
    """A condition that is known everywhere picks one side for good."""
    condition = constant(node.inputs[0])
    if condition is not None and (condition.all() or not condition.any()):
        picked = argument(node, 1 if condition.all() else 2)
        if static_shape(picked) == static_shape(node.outputs[0]) is not None:
            edit.substitute(node, picked)
            return True
    return _guarded_softmax(node, edit)


def _guarded_softmax(node: ir.Node, edit: Edit) -> bool:
    """torch guards the softmax of a fully masked row: Where(IsNaN(s), 0, s) with s a Softmax is s."""
    condition, zero, x = arguments(node)
    test, source = condition.producer(), x.producer()
    filler = constant(zero)
    if (
        test is None
        or test.op_type != "IsNaN"
        or test.inputs[0] is not x
        or source is None
        or source.op_type != "Softmax"
        or filler is None
        or filler.any()
    ):
        return False
    edit.substitute(node, x)
    return True


def _gather(node: ir.Node, edit: Edit) -> bool:
    """Positions that count samples, as those of several are further on, and are all in order: a Reshape."""
    indices, shape = optional_parameter(node, 1), static_shape(node.inputs[0])
    if indices is None or shape is None or str(argument(node, 1).name) not in (batch_axes(edit.graph) or {}):
        return False
    axis = integer(node, "axis") % len(shape)
    if not np.array_equal(indices.reshape(-1) % shape[axis], np.arange(shape[axis])):
        return False
    target = np.array([*shape[:axis], *indices.shape, *shape[axis + 1 :]], np.int64)
    edit.replace(node, "Reshape", [argument(node, 0), edit.constant("shape", target)])
    return True


def _gather_nd(node: ir.Node, edit: Edit) -> bool:
    """Constant coordinates along the first k dimensions: Gather along these as one, or nothing where all are picked in
    order."""
    indices, x, shape = optional_parameter(node, 1), argument(node, 0), static_shape(node.inputs[0])
    if indices is None or shape is None or node.attributes.get_int("batch_dims", 0) != 0:
        return False
    first, rest = shape[: indices.shape[-1]], shape[indices.shape[-1] :]
    places = np.ravel_multi_index(tuple(np.moveaxis(indices % np.array(first), -1, 0)), first)
    if np.array_equal(places.reshape(-1), np.arange(math.prod(first))):
        target = edit.constant(f"{x.name}/shape", np.array([*places.shape, *rest], np.int64))
        edit.replace(node, "Reshape", [x, target])
        return True
    if len(first) > 1:
        flat = (math.prod(first), *rest)
        target = edit.constant(f"{x.name}/shape", np.array(flat, np.int64))
        x = edit.insert(node, "Reshape", [x, target], shape=flat, dtype=x.dtype)
    picked = edit.constant(f"{argument(node, 1).name}/first", places.astype(np.int64))
    edit.replace(node, "Gather", [x, picked], {"axis": 0})
    return True


def _lp_pool(node: ir.Node, edit: Edit) -> bool:
    """(number of cells * mean of |x|^p)^(1 / p); with ceil_mode the mean is over fewer cells at the end."""
    attributes = {k: a.value for k, a in node.attributes.items()}
    power, kernel = attributes.pop("p", 2), attributes.get("kernel_shape")
    if attributes.get("ceil_mode") or kernel is None or argument(node, 0).dtype != ir.DataType.FLOAT:
        return False
    size = edit.insert(node, "Abs", [argument(node, 0)])
    raised = size if power == 1 else edit.insert(node, "Pow", [size, edit.constant("p", np.float32(power))])
    mean = edit.insert(node, "AveragePool", [raised], attributes | {"count_include_pad": 1})
    total = edit.insert(node, "Mul", [mean, edit.constant("cells", np.float32(math.prod(kernel)))])
    edit.replace(node, "Pow", [total, edit.constant("1/p", np.float32(1 / power))])
    return True


def _global_lp_pool(node: ir.Node, edit: Edit) -> bool:
    """The norm of all that is behind the channels."""
    x = argument(node, 0)
    if x.shape is None or x.dtype != ir.DataType.FLOAT:
        return False
    power, axes = node.attributes.get_int("p", 2), edit.constant("axes", np.arange(2, len(x.shape)))
    if power == 2:
        raised = edit.insert(node, "Mul", [x, x])
    else:
        raised = edit.insert(node, "Abs", [x])
        if power != 1:
            raised = edit.insert(node, "Pow", [raised, edit.constant("p", np.float32(power))])
    total = edit.insert(node, "ReduceSum", [raised, axes], {"keepdims": 1})
    if power == 2:
        edit.replace(node, "Sqrt", [total])
    else:
        edit.replace(node, "Pow", [total, edit.constant("1/p", np.float32(1 / power))])
    return True


def _compress(node: ir.Node, edit: Edit) -> bool:
    """Gather of the positions that are chosen, where they are known."""
    chosen, x = optional_parameter(node, 1), argument(node, 0)
    if chosen is None:
        return False
    axis = node.attributes.get_int("axis")
    if axis is None:
        x = edit.insert(node, "Reshape", [x, edit.constant("flat", np.array([-1]))], dtype=x.dtype)
    edit.replace(node, "Gather", [x, edit.constant("chosen", np.flatnonzero(chosen))], {"axis": axis or 0})
    return True


def _modulo(node: ir.Node, edit: Edit) -> bool:
    """x - y floor(x / y) of floats, which ONNX Runtime computes with fmod alone. For an infinite y that is x, or y if
    their signs differ."""
    x, y = arguments(node)
    if node.outputs[0].dtype != ir.DataType.FLOAT or integer(node, "fmod"):
        return False
    times = edit.insert(node, "Floor", [edit.insert(node, "Div", [x, y])])
    rest = edit.insert(node, "Sub", [x, edit.insert(node, "Mul", [y, times])])
    divisor = constant(y)
    if divisor is not None and np.isfinite(divisor).all():
        edit.substitute(node, rest)
        return True
    is_opposite = edit.insert(
        node, "Less", [edit.insert(node, "Mul", [x, y]), edit.constant("zero", np.float32(0))], dtype=ir.DataType.BOOL
    )
    at_infinity = edit.insert(node, "Where", [is_opposite, y, x])
    edit.replace(node, "Where", [edit.insert(node, "IsInf", [y], dtype=ir.DataType.BOOL), at_infinity, rest])
    return True


def _transpose(node: ir.Node, edit: Edit) -> bool:
    """Moving nothing but dimensions of size 1 is a Reshape. NCHW <-> NHWC stays: emitters cancel those. An open batch
    dimension is no such one."""
    shape, perm = static_shape(node.inputs[0]), node.attributes.get_ints("perm")
    if shape is None or perm is None or tuple(perm) in ((0, 2, 3, 1), (0, 3, 1, 2)):
        return False
    samples = (batch_axes(edit.graph) or {}).get(str(argument(node, 0).name))
    moved = [p for p in perm if shape[p] != 1 or p == samples]
    if moved != sorted(moved):
        return False
    target = np.array([shape[p] for p in perm], np.int64)
    edit.replace(node, "Reshape", [argument(node, 0), edit.constant("shape", target)])
    return True


def _identity(node: ir.Node, edit: Edit) -> bool:
    """Gone, except between an input (or a constant) and an output of the model."""
    value, output = argument(node, 0), node.outputs[0]
    if output.is_graph_output() and (value.is_graph_input() or value.is_initializer() or value.is_graph_output()):
        return False
    edit.substitute(node, value)
    return True


REWRITES: dict[str, Rewrite] = {
    "Add": _add,
    "ArgMax": _arg_max,
    "ArgMin": _arg_min,
    "Cast": _cast,
    "Compress": _compress,
    "Div": _divide,
    "Dropout": _dropout,
    "Expand": _same_shape,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "GreaterOrEqual": _not("Less"),
    "Identity": _identity,
    "LessOrEqual": _not("Greater"),
    "LpPool": _lp_pool,
    "GlobalLpPool": _global_lp_pool,
    "Max": _chain("Max"),
    "Mean": _mean,
    "Min": _chain("Min"),
    "Mod": _modulo,
    "Pad": _same_shape,
    "Pow": _power,
    "ReduceMax": _reduce_max,
    "ReduceMin": _reduce_min,
    "Slice": _same_shape,
    "Sum": _chain("Add"),
    "Tile": _same_shape,
    "Transpose": _transpose,
    "Where": _where,
}
