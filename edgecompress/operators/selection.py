"""Operators that pick, move and mark elements by their position, written with Gather, Equal and Where.

Elements are counted along several axes as one, so that one Gather does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgecompress.graph.channel_axes import shape
from edgecompress.graph.fusion import Layer, constant
from edgecompress.graph.nodes import argument, integer, optional_parameter, parameter, text
from edgecompress.lowering import forms
from edgecompress.lowering.context import Context
from edgecompress.lowering.flatbuffer import TENSOR_TYPES
from edgecompress.lowering.parts import Parts
from edgecompress.operators.checks import constant_inputs
from edgecompress.operators.example import Example
from edgecompress.operators.record import Operator, TorchFunction, register

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_TABLE = 2**22  # elements: 16 MiB
LARGEST = float(np.finfo(np.float32).max)
NEUTRAL = {"mul": 1.0, "max": -LARGEST, "min": LARGEST}  # reduction -> what changes nothing
NUMBERS = {ir.DataType.INT32: np.int32, ir.DataType.INT64: np.int64}


def _like(array: np.ndarray | int, value: ir.Value) -> np.ndarray:
    """The numbers in the dtype of the value, which are positions."""
    return np.asarray(array, NUMBERS.get(value.dtype or ir.DataType.INT64, np.int64))


def _strides(dims: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis are, counted in elements."""
    return [prod(dims[axis + 1 :]) for axis in range(len(dims))]


def _from_start(op: Parts, indices: ir.Value, count: int) -> ir.Value:
    """Positions along an axis of `count`, of which those below 0 count from the end."""
    below = op.Less(indices, _like(0, indices))
    return op.Where(below, op.Add(indices, _like(count, indices)), indices)


# ---- Gather of several axes as one ----


def _flat_elements(op: Parts, x: ir.Value, indices: ir.Value, axis: int) -> ir.Value | np.ndarray:
    """Where the elements of GatherElements and ScatterElements lie in x, all of whose axes are one. [as indices]"""
    dims, out, known = shape(x), shape(indices), constant(indices)
    places = np.zeros(out, np.int64)
    for a, (size, stride) in enumerate(zip(out, _strides(dims))):
        if a != axis:
            places += stride * np.arange(size).reshape([-1 if i == a else 1 for i in range(len(out))])
    if known is not None:
        return _like(known.astype(np.int64) % dims[axis] * _strides(dims)[axis] + places, indices)
    moved = op.Mul(_from_start(op, indices, dims[axis]), _like(_strides(dims)[axis], indices))
    return op.Add(moved, _like(places, indices))


def _gather_elements_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, indices = argument(node, 0), argument(node, 1)
    axis = integer(node, "axis", 0) % len(shape(x))
    return [op.Gather(op.Reshape(x, [-1]), _flat_elements(op, x, indices, axis), axis=0)]


def _flat_rows(op: Parts, dims: Sequence[int], indices: ir.Value) -> ir.Value | np.ndarray:
    """Coordinates [..., k] along the first k dimensions -> positions [...] along these as one."""
    count, known = shape(indices)[-1], constant(indices)
    if known is not None:
        return _like((known.astype(np.int64) % dims[:count] * _strides(dims[:count])).sum(-1), indices)
    total: ir.Value | None = None
    for axis, stride in enumerate(_strides(dims[:count])):
        place = _from_start(op, op.Gather(indices, np.int64(axis), axis=-1), dims[axis])
        place = op.Mul(place, _like(stride, indices)) if stride != 1 else place
        total = place if total is None else op.Add(total, place)
    assert total is not None
    return total


def _gather_nd_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    x, indices, batches = argument(node, 0), argument(node, 1), integer(node, "batch_dims", 0)
    dims, out = shape(x), shape(indices)[:-1]
    picked = dims[batches : batches + shape(indices)[-1]]
    rows = _flat_rows(op, picked, indices)
    if batches:
        batch = np.arange(prod(dims[:batches])).reshape(*out[:batches], *[1] * (len(out) - batches))
        offsets = _like(batch * prod(picked), indices)
        rows = rows + offsets if isinstance(rows, np.ndarray) else op.Add(rows, offsets)
    rest = dims[batches + len(picked) :]
    return [op.Gather(op.Reshape(x, [-1, *rest]), rows, axis=0)]


def _reverse_sequence_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """The first `length` steps of each sequence, backwards."""
    x, lengths, over = argument(node, 0), parameter(node, 1), integer(node, "time_axis", 0)
    dims = shape(x)
    time, batch = np.indices(dims[:2]) if over == 0 else np.indices(dims[:2])[::-1]
    own = lengths.astype(np.int64)[batch]
    time = np.where(time < own, own - 1 - time, time)
    rows = np.ravel_multi_index((time, batch) if over == 0 else (batch, time), dims[:2])
    return [op.Gather(op.Reshape(x, [-1, *dims[2:]]), rows, axis=0)]


# ---- scattering ----


def _scatter_elements_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """ScatterND of all axes as one."""
    x, indices, updates = (argument(node, i) for i in range(3))
    flat = _flat_elements(op, x, indices, integer(node, "axis", 0) % len(shape(x)))
    operands = op.Reshape(x, [-1]), op.Reshape(flat, [-1, 1]), op.Reshape(updates, [-1])
    return [op.Reshape(op.ScatterND(*operands, reduction=text(node, "reduction", "none")), list(shape(x)))]


def _written_elements(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """Of ScatterElements at constant positions: a Gather from x and the updates, one behind the other."""
    x, indices, updates = (argument(node, i) for i in range(3))
    if constant(indices) is None or text(node, "reduction", "none") != "none":
        return None
    places = np.asarray(_flat_elements(op, x, indices, integer(node, "axis", 0) % len(shape(x))))
    return _picked(op, x, places, updates)


def _written_rows(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """The same of ScatterND, whose updates are rows along the axes that have no coordinates."""
    x, indices, updates = (argument(node, i) for i in range(3))
    if constant(indices) is None or text(node, "reduction", "none") != "none":
        return None
    dims, count = shape(x), shape(indices)[-1]
    rest = prod(dims[count:])
    rows = np.asarray(_flat_rows(op, dims[:count], indices))
    return _picked(op, x, rows[..., None] * rest + np.arange(rest), updates)


def _picked(op: Parts, x: ir.Value, places: np.ndarray, updates: ir.Value) -> Sequence[ir.Value]:
    """places: of the updates in x, all of whose axes are one; the last one of several for one place stays."""
    source = np.arange(prod(shape(x)))
    source[places.ravel()] = len(source) + np.arange(prod(shape(updates)))
    both = op.Concat(op.Reshape(x, [-1]), op.Reshape(updates, [-1]), axis=0)
    return [op.Gather(both, source.reshape(shape(x)), axis=0)]


def _lower_scatter_nd(ctx: Context, layer: Layer) -> None:
    """SCATTER_ND writes updates among zeros, and adds up those for one place. Of ones it says where x stays."""
    x, indices, updates = (argument(layer.node, i) for i in range(3))
    dims, name = shape(x), layer.output.name
    where = _places(ctx, indices, dims)
    size, source = ctx.ints(dims), ctx.get(x, forms.identity(len(dims)))
    target = ctx.new(layer.output, forms.identity(len(dims)))
    given = ctx.get(updates, forms.identity(len(shape(updates))))
    placed = ctx.op("SCATTER_ND", [where, given, size], [ctx.like(source, f"{name}/placed", dims)])
    if text(layer.node, "reduction", "none") == "add":
        ctx.op("ADD", [source, placed], [target], fusedActivationFunction=0)
        return
    ones = ctx.constant(np.ones(shape(updates), np.int32))
    counts = ctx.op("SCATTER_ND", [where, ones, size], [ctx.temporary(f"{name}/counts", dims, ir.DataType.INT32)])
    changed = ctx.temporary(f"{name}/changed", dims, ir.DataType.BOOL)
    ctx.op("GREATER", [counts, ctx.constant(np.array(0, np.int32))], [changed])
    ctx.op("SELECT_V2", [changed, placed, source], [target])


def _places(ctx: Context, indices: ir.Value, dims: Sequence[int]) -> int:
    """The coordinates as int32, counted from the start: p - n max(min(p, 0), -1)."""
    counts = np.array(dims[: shape(indices)[-1]], np.int32)
    known = ctx.array(indices)
    if known is not None:
        return ctx.constant((known % counts).astype(np.int32), name=indices.name or "")
    source = ctx.get(indices, forms.identity(len(shape(indices))))

    def result(name: str) -> int:
        return ctx.temporary(f"{indices.name}/{name}", shape(indices), ir.DataType.INT32)

    if ctx.tensor(source).dtype != ir.DataType.INT32:
        types = (TENSOR_TYPES[ctx.tensor(source).dtype], TENSOR_TYPES[ir.DataType.INT32])
        source = ctx.op("CAST", [source], [result("int32")], inDataType=types[0], outDataType=types[1])
    below = ctx.op("MINIMUM", [source, ctx.constant(np.array(0, np.int32))], [result("below")])
    turns = ctx.op("MAXIMUM", [below, ctx.constant(np.array(-1, np.int32))], [result("turns")])
    moved = ctx.op("MUL", [turns, ctx.constant(-counts)], [result("moved")], fusedActivationFunction=0)
    return ctx.op("ADD", [source, moved], [result("from_start")], fusedActivationFunction=0)


def _scatter_nd_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value] | None:
    """Multiplies, or takes the largest or smallest, over all updates of each place, of which others are neutral."""
    reduction = text(node, "reduction", "none")
    if reduction not in NEUTRAL:
        return None
    x, indices, updates = (argument(node, i) for i in range(3))
    dims, count = shape(x), shape(indices)[-1]
    places, writes = prod(dims[:count]), prod(shape(indices)[:-1])
    rest = prod(dims[count:])
    rows = op.Reshape(_flat_rows(op, dims[:count], indices), [1, writes, 1])
    is_there = op.Equal(rows, _like(np.arange(places).reshape(-1, 1, 1), indices))
    candidates = op.Where(is_there, op.Reshape(updates, [1, writes, rest]), NEUTRAL[reduction])
    own = op.Reshape(x, [places, rest])
    if reduction == "mul":
        result = op.Mul(own, op.ReduceProd(candidates, [1], keepdims=0))
    elif reduction == "max":
        result = op.Max(own, op.ReduceMax(candidates, [1], keepdims=0))
    else:
        result = op.Min(own, op.Neg(op.ReduceMax(op.Neg(candidates), [1], keepdims=0)))
    return [op.Reshape(result, list(dims))]


def _accepts_scatter(node: ir.Node) -> str | None:
    reduction, x, updates = text(node, "reduction", "none"), argument(node, 0), argument(node, 2)
    if reduction not in NEUTRAL:
        return None
    if x.dtype != ir.DataType.FLOAT:
        return f"operator {node.op_type} of whole numbers with the reduction {reduction}"
    is_large = prod(shape(x)) * prod(shape(updates)) > LARGEST_TABLE
    return f"operator {node.op_type} of so many elements with the reduction {reduction}" if is_large else None


def _scatter_nd_torch(node: ir.Node) -> TorchFunction:
    reduction = text(node, "reduction", "none")

    def scatter(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        where = tuple(indices.movedim(-1, 0))
        if reduction in ("none", "add"):
            return x.index_put(where, updates, accumulate=reduction == "add")
        sizes = x.shape[: len(where)]
        rows = sum((i % n) * prod(sizes[a + 1 :]) for a, (i, n) in enumerate(zip(where, sizes)))
        flat = updates.reshape(rows.numel(), -1)
        kind = {"mul": "prod", "max": "amax", "min": "amin"}[reduction]
        places = rows.reshape(-1, 1).expand(flat.shape)
        return x.reshape(prod(sizes), -1).scatter_reduce(0, places, flat, kind).reshape(x.shape)

    return scatter


def _tensor_scatter_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Writes consecutive entries of a cache, of each sample from its own position on."""
    cache, update = argument(node, 0), argument(node, 1)
    dims, rank = shape(cache), len(shape(cache))
    axis = integer(node, "axis", -2) % rank
    count = shape(update)[axis]
    order = [0, axis, *(a for a in range(1, rank) if a != axis)]
    places = np.broadcast_to(np.arange(count), (dims[0], count))
    given = node.inputs[2] if len(node.inputs) > 2 else None
    at: ir.Value | np.ndarray = places if given is None else op.Add(op.Reshape(given, [-1, 1]), places)
    if text(node, "mode", "linear") == "circular":
        at = op.Mod(at, dims[axis])
    samples = np.broadcast_to(np.arange(dims[0])[:, None, None], (dims[0], count, 1))
    indices = op.Concat(samples, op.Reshape(at, [dims[0], count, 1]), axis=2)
    moved = (op.Transpose(value, perm=order) for value in (cache, update))
    cached, new = moved
    return [op.Transpose(op.ScatterND(cached, indices, new), perm=[order.index(a) for a in range(rank)])]


# ---- marks: Equal to the numbers along an axis ----


def _positions(count: int, axis: int, rank: int) -> np.ndarray:
    """0, 1, .. along an axis of a value of that rank; other axes are 1."""
    return np.arange(count).reshape([-1 if a == axis else 1 for a in range(rank)])


def _one_hot_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    indices, depth, values = argument(node, 0), int(parameter(node, 1).reshape(())), argument(node, 2)
    rank = len(shape(indices)) + 1
    axis = integer(node, "axis", -1) % rank
    if indices.dtype not in NUMBERS:
        indices = op.Cast(indices, to=int(ir.DataType.INT64))
    sizes = [*shape(argument(node, 0))]
    where = op.Reshape(_from_start(op, indices, depth), [*sizes[:axis], 1, *sizes[axis:]])
    marked = op.Equal(where, _like(_positions(depth, axis, rank), indices))
    off, on = (op.Gather(values, np.int64(i), axis=0) for i in (0, 1))
    return [op.Where(marked, on, off)]


def _hardmax_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """1 where the (first) maximum along the axis lies, else 0."""
    x, rank = argument(node, 0), len(shape(argument(node, 0)))
    axis = integer(node, "axis", -1) % rank
    largest = op.ArgMax(x, axis=axis, keepdims=1)
    marked = op.Equal(largest, _positions(shape(x)[axis], axis, rank))
    return [op.Cast(marked, to=int(ir.DataType.FLOAT))]


def _trilu_parts(op: Parts, node: ir.Node) -> Sequence[ir.Value]:
    """Zeros below (or above) a diagonal."""
    x, k = argument(node, 0), optional_parameter(node, 1)
    cut = np.triu if integer(node, "upper", 1) else np.tril
    kept = cut(np.ones(shape(x)[-2:], bool), 0 if k is None else int(k.reshape(())))
    dtype = (x.dtype or ir.DataType.FLOAT).numpy()
    return [op.Where(kept, x, np.zeros((), dtype))]


def _accepts_positions(node: ir.Node) -> str | None:
    """Positions are int32 or int64."""
    dtype = argument(node, 1).dtype
    return None if dtype in NUMBERS else f"operator {node.op_type} at positions of an unknown type"


HOT = {"d": np.array(6), "v": np.array([-1, 2], np.float32)}


register(
    Operator(
        "GatherElements",
        examples=(
            Example("i = ArgMax<axis=2>(x) y = GatherElements<axis=2>(x, i)", {"x": (1, 5, 7)}),
            Example("y = GatherElements<axis=-1>(x, i)", {"x": (2, 3)}, constants={"i": [[0, -1], [2, 0]]}),
        ),
        accepts=_accepts_positions,
        parts=_gather_elements_parts,
        integer_parts=_gather_elements_parts,
    ),
    Operator(
        "GatherND",
        examples=(
            Example("a = ArgMax<axis=2>(x) i = Sub(a, c) y = GatherND(x, i)", {"x": (5, 3, 4)}, {}, {"c": np.array(2)}),
            Example("y = GatherND<batch_dims=1>(x, i)", {"x": (2, 3, 4)}, constants={"i": [[[0, -1]], [[2, 1]]]}),
        ),
        accepts=_accepts_positions,
        parts=_gather_nd_parts,
        integer_parts=_gather_nd_parts,
    ),
    Operator(
        "ScatterElements",
        examples=(
            Example("i = ArgMax<axis=2>(x) y = ScatterElements<axis=2>(x, i, z)", {"x": (1, 5, 7), "z": (1, 5, 1)}),
            Example("y = ScatterElements(x, i, z)", {"x": (3, 4), "z": (1, 3)}, constants={"i": [[0, -1, 1]]}),
        ),
        accepts=_accepts_scatter,
        parts=_scatter_elements_parts,
        integer_parts=_written_elements,
    ),
    Operator(
        "ScatterND",
        examples=(
            Example(
                "a = ArgMax<axis=1>(x) i = Sub(a, c) y = ScatterND(z, i, u)",
                {"x": (1, 5), "z": (5, 3), "u": (1, 3)},
                constants={"c": np.array(2)},
            ),
            Example("y = ScatterND(x, i, u)", {"x": (4, 3), "u": (2, 3)}, constants={"i": [[2], [-4]]}),
            Example('y = ScatterND<reduction="add">(x, i, u)', {"x": (4, 3), "u": (2, 3)}, constants={"i": [[1], [1]]}),
            Example('y = ScatterND<reduction="max">(x, i, u)', {"x": (4, 3), "u": (2, 3)}, constants={"i": [[1], [1]]}),
        ),
        accepts=_accepts_scatter,
        parts=_scatter_nd_parts,
        integer_parts=_written_rows,
        torch=_scatter_nd_torch,
        tflite=_lower_scatter_nd,
    ),
    Operator(
        "TensorScatter",
        examples=(
            Example(
                'y = TensorScatter<mode="circular">(x, u, i)',
                {"x": (2, 1, 4, 3), "u": (2, 1, 2, 3)},
                constants={"i": [1, 3]},
                opset=24,
            ),
        ),
        parts=_tensor_scatter_parts,
    ),
    Operator(
        "ReverseSequence",
        examples=(
            Example("y = ReverseSequence<time_axis=1, batch_axis=0>(x, n)", {"x": (2, 4, 3)}, constants={"n": [4, 2]}),
        ),
        accepts=constant_inputs(1),
        parts=_reverse_sequence_parts,
        integer_parts=_reverse_sequence_parts,
    ),
    Operator(
        "OneHot",
        examples=(Example("i = ArgMax<axis=2, keepdims=0>(x) y = OneHot<axis=1>(i, d, v)", {"x": (1, 5, 7)}, {}, HOT),),
        accepts=constant_inputs(1),
        parts=_one_hot_parts,
    ),
    Operator("Hardmax", examples=(Example("y = Hardmax<axis=1>(x)"),), parts=_hardmax_parts, ranks=True),
    Operator(
        "Trilu",
        examples=(
            Example("y = Trilu<upper=0>(x, k)", {"x": (1, 2, 4, 5)}, constants={"k": np.array(-1)}),
            Example("y = Trilu(x)", {"x": (3, 5)}),
        ),
        accepts=constant_inputs(1),
        parts=_trilu_parts,
        integer_parts=_trilu_parts,
    ),
)
