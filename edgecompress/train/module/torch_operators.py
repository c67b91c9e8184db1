"""What each ONNX operator computes, in torch: elementwise, reductions, and moving data about.

An entry of FUNCTIONS takes a node of a canonical model and returns a function of the node's inputs (None for an
absent one) that has the node's attributes and constant parameters built in. Layers are in `torch_layers`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F

from edgecompress.graph.fusion import constant

Function = Callable[..., Tensor | Sequence[Tensor]]
Builder = Callable[[ir.Node], Function]
FUNCTIONS: dict[str, Builder] = {}

DTYPES = {
    ir.DataType.FLOAT: torch.float32, ir.DataType.INT64: torch.int64, ir.DataType.INT32: torch.int32,
    ir.DataType.BOOL: torch.bool,
}  # fmt: skip


def function(*op_types: str) -> Callable[[Builder], Builder]:
    """Enters a builder in FUNCTIONS."""

    def enter(builder: Builder) -> Builder:
        FUNCTIONS.update(dict.fromkeys(op_types, builder))
        return builder

    return enter


def parameter(node: ir.Node, position: int) -> np.ndarray | None:
    """The constant at an input position, or None when there is none."""
    return constant(node.inputs[position]) if position < len(node.inputs) else None


def integers(node: ir.Node, position: int) -> list[int]:
    array = parameter(node, position)
    return [] if array is None else [int(i) for i in array.reshape(-1)]


def integer(node: ir.Node, name: str, default: int = 0) -> int:
    return int(node.attributes.get_int(name, default))


def number(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes.get_float(name, default))


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """One large product rather than a batch of small ones where the second operand is a matrix."""
    if b.ndim == 2 and a.ndim > 2:
        return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])
    return a @ b


# operators without attributes
PLAIN: dict[str, Function] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Div": _divide,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "Greater": torch.gt,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "Less": torch.lt,
    "Log": torch.log,
    "MatMul": _matmul,
    "Max": lambda *xs: functools.reduce(torch.maximum, xs),
    "Min": lambda *xs: functools.reduce(torch.minimum, xs),
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "PRelu": lambda x, slope: torch.where(x >= 0, x, slope * x),
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}


def _always(plain: Function) -> Builder:
    return lambda node: plain


FUNCTIONS.update({op_type: _always(plain) for op_type, plain in PLAIN.items()})


@function("ArgMax")
def arg_max(node: ir.Node) -> Function:
    axis, keep = integer(node, "axis"), bool(integer(node, "keepdims", 1))
    if not integer(node, "select_last_index"):
        return lambda x: x.argmax(axis, keepdim=keep)
    return lambda x: x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=keep)


@function("Cast")
def cast(node: ir.Node) -> Function:
    dtype = DTYPES[ir.DataType(integer(node, "to"))]
    return lambda x: x.to(dtype)


@function("Clip")
def clip(node: ir.Node) -> Function:
    low, high = (None if (a := parameter(node, i)) is None else a.item() for i in (1, 2))
    return lambda x, *bounds: torch.clamp(x, low, high)


@function("Concat")
def concat(node: ir.Node) -> Function:
    axis = integer(node, "axis")

    def join(*xs: Tensor) -> Tensor:
        """A constant of batch 1 goes with every sample."""
        others = [[n for i, n in enumerate(x.shape) if i != axis] for x in xs]
        if any(o != others[0] for o in others):
            wide = torch.broadcast_shapes(*others)
            xs = tuple(x.expand(*wide[:axis], x.shape[axis], *wide[axis:]) for x in xs)
        return torch.cat(xs, axis)

    return join


@function("DepthToSpace")
def depth_to_space(node: ir.Node) -> Function:
    size = integer(node, "blocksize")
    if node.attributes.get_string("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // size**2, h * size, w * size)

    return move


@function("SpaceToDepth")
def space_to_depth(node: ir.Node) -> Function:
    size = integer(node, "blocksize")

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * size**2, h // size, w // size)

    return move


@function("Elu")
def elu(node: ir.Node) -> Function:
    alpha = number(node, "alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@function("Expand")
def expand(node: ir.Node) -> Function:
    target = integers(node, 1)
    return lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, target))


@function("Gather")
def gather(node: ir.Node) -> Function:
    axis, picked = integer(node, "axis"), parameter(node, 1)
    if picked is not None and picked.ndim == 0:
        return lambda x, indices: x.select(axis, int(picked))

    def pick(x: Tensor, indices: Tensor) -> Tensor:
        wrapped = torch.where(indices < 0, indices + x.shape[axis], indices)
        rows = x.index_select(axis, wrapped.reshape(-1))
        return rows.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    return pick


@function("Gelu")
def gelu(node: ir.Node) -> Function:
    return functools.partial(F.gelu, approximate=node.attributes.get_string("approximate", "none"))


@function("HardSigmoid")
def hard_sigmoid(node: ir.Node) -> Function:
    alpha, beta = number(node, "alpha", 0.2), number(node, "beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


@function("LeakyRelu")
def leaky_relu(node: ir.Node) -> Function:
    alpha = number(node, "alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@function("Pad")
def pad(node: ir.Node) -> Function:
    before, after = np.array(integers(node, 1)).reshape(2, -1)
    if node.attributes.get_string("mode", "constant") == "constant":
        filler = parameter(node, 2)
        value = 0.0 if filler is None else filler.item()
        amounts = [int(n) for pair in zip(before[::-1], after[::-1]) for n in pair]
        return lambda x, *parameters: F.pad(x, amounts, value=value)

    def reflect(x: Tensor, *parameters: Tensor) -> Tensor:
        for axis in np.flatnonzero(before | after):
            places = np.pad(np.arange(x.shape[axis]), (before[axis], after[axis]), "reflect")
            x = x.index_select(int(axis), torch.as_tensor(places, device=x.device))
        return x

    return reflect


def _reduction(reduce: Callable[..., Tensor]) -> Builder:
    def build(node: ir.Node) -> Function:
        axes, keep = tuple(integers(node, 1)), bool(integer(node, "keepdims", 1))
        return lambda x, *parameters: reduce(x, axes, keepdim=keep)

    return build


FUNCTIONS["ReduceMax"] = _reduction(torch.amax)
FUNCTIONS["ReduceMean"] = _reduction(torch.mean)
FUNCTIONS["ReduceSum"] = _reduction(torch.sum)


@function("Reshape")
def reshape(node: ir.Node) -> Function:
    target = tuple(integers(node, 1))
    return lambda x, shape: x.reshape(target)


def batch_reshapes(node: ir.Node) -> list[Function]:
    """A Reshape written for a batch of one, for any: one function for each place that the batch may take.

    Most probable first: it stays where it is in memory, in a dimension of 1; it is carried to another dimension of
    1, for a Transpose of such dimensions has become a Reshape; it is merged with another dimension; there is none.
    """
    target = integers(node, 1)
    before = [int(d) for d in node.inputs[0].shape]
    still = [functools.partial(_reshape, (*target[:i], -1, *target[i + 1 :])) for i in range(len(target))]
    alone = [still[i] for i, n in enumerate(target) if n == 1]
    merged = [still[i] for i, n in enumerate(target) if n != 1]
    moved = [
        functools.partial(_reshape_sample, target, old, n, inner, new)
        for new, m in enumerate(target)
        if m == 1
        for old, n in enumerate(before)
        for inner in ((False,) if n == 1 else (False, True))
    ]
    return [*alone, *moved, *merged, reshape(node)]


def _reshape(target: tuple[int, ...], x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape(target)


def _reshape_sample(target: list[int], old: int, size: int, inner: bool, new: int, x: Tensor, shape: Tensor) -> Tensor:
    """The batch is dimension `old` of x, or the outer or inner part of it beside the `size` that the model says."""
    split = (size, x.shape[old] // size) if inner else (x.shape[old] // size, size)
    samples = x.unflatten(old, split).movedim(old + inner, 0)
    return samples.reshape(len(samples), *target[:new], *target[new + 1 :]).movedim(0, new)


@function("Slice")
def slice_(node: ir.Node) -> Function:
    ranges = list(zip(*(integers(node, i) for i in (3, 1, 2, 4))))

    def cut(x: Tensor, *parameters: Tensor) -> Tensor:
        for axis, start, end, step in ranges:
            if step < 0:  # which torch's slices haven't
                places = torch.arange(start, max(end, -1), step, device=x.device)
                x = x.index_select(axis, places)
            else:
                x = x[(slice(None),) * axis + (slice(start, end, step),)]
        return x

    return cut


@function("Softmax")
def softmax(node: ir.Node) -> Function:
    return functools.partial(torch.softmax, dim=integer(node, "axis", -1))


@function("LogSoftmax")
def log_softmax(node: ir.Node) -> Function:
    return functools.partial(torch.log_softmax, dim=integer(node, "axis", -1))


@function("Split")
def split(node: ir.Node) -> Function:
    axis, sizes = integer(node, "axis"), integers(node, 1)
    return lambda x, parameters: x.split(sizes, axis)


@function("Tile")
def tile(node: ir.Node) -> Function:
    repeats = integers(node, 1)
    return lambda x, parameters: x.repeat(repeats)


@function("Transpose")
def transpose(node: ir.Node) -> Function:
    order = node.attributes.get_ints("perm")
    if order is None:
        return lambda x: x.permute(*reversed(range(x.ndim)))
    return lambda x: x.permute(order)
