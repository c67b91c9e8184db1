"""Shape rules: whether an operator's tensors fit together, since kernels check nothing while they run.

A rule takes operands and options and gives the shapes that the outputs have to have. It raises MisfitError, or whatever
Python raises over operands that are missing or of other ranks. `operators.RECORDS` says which operator has which rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecompress_runtime.errors import MisfitError
from edgecompress_runtime.options import (
    SAME,
    BatchMatmulOptions,
    BlockOptions,
    ConcatenationOptions,
    GatherOptions,
    Options,
    PoolOptions,
    ReductionOptions,
    ResizeOptions,
    WindowOptions,
)
from edgecompress_runtime.plan import Tensor

Shape = tuple[int, ...]
Inputs = Sequence[Any]  # of Tensor, None where an optional one is absent
Outputs = Sequence[Tensor]


def require(condition: bool, reason: str) -> None:
    """Raises MisfitError with this reason unless the condition holds."""
    if not condition:
        raise MisfitError(reason)


def numbers(tensor: Tensor) -> list[int]:
    """The elements of a constant operand of integers."""
    require(
        tensor.data is not None and np.issubdtype(tensor.dtype, np.integer), f"{tensor.name[:60]!r} is not a constant"
    )
    assert tensor.data is not None
    return [int(n) for n in tensor.data.reshape(-1)]


def axis_of(value: int, rank: int) -> int:
    """An axis counted from the front; it may be given from the end, as a negative number."""
    require(-rank <= value < rank, f"axis {value} is outside of {rank} dimensions")
    return value % rank


def window(scheme: int | tuple[int, int], size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Positions of a window along one axis."""
    span = (kernel - 1) * dilation + 1
    return -(-size // stride) if scheme == SAME else -(-(size - span + 1) // stride)


def windows(options: WindowOptions, size: Shape, kernel: Sequence[int]) -> list[int]:
    """Positions of a window along rows and columns."""
    steps = zip(size, kernel, options.strides, options.dilations)
    return [window(options.padding, *each) for each in steps]


def channels(inputs: Sequence[Any], w: Tensor, count: int) -> None:
    """A layer's weights have a scale or one for each output channel; its bias has an element for each."""
    require(w.scale.size in (0, 1, count), f"{w.scale.size} scales for {count} channels")
    bias = inputs[2] if len(inputs) > 2 else None
    require(bias is None or bias.size == count, "expected as many biases as output channels")


def elementwise(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """One input, and whatever else belongs to it: the output has its shape."""
    return [inputs[0].shape]


def table(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """x and a constant of 256 entries."""
    x, entries = inputs
    require(entries.data is not None and entries.shape == (256,), "expected a constant table of 256 entries")
    return [x.shape]


def softmax(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """SOFTMAX runs along the last axis, so there must be one."""
    require(len(inputs[0].shape) > 0, "expected at least one dimension")
    return [inputs[0].shape]


def leave(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: probabilities of one sample, and a value for each output of the plan."""
    x = inputs[0]
    require(len(x.shape) > 0 and x.size == x.shape[-1], f"expected probabilities of one sample, found {list(x.shape)}")
    require(all(value is not None for value in inputs), "an operand is missing")
    return [(1,)]


def reverse(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x and a constant of axes."""
    axes = [axis_of(axis, len(inputs[0].shape)) for axis in numbers(inputs[1])]
    require(len(set(axes)) == len(axes), f"an axis twice: {axes}")
    return [inputs[0].shape]


def binary(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Two operands, broadcast."""
    a, b = inputs
    return [np.broadcast_shapes(a.shape, b.shape)]


def select(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: condition, and two operands of one type, all broadcast."""
    condition, a, b = inputs
    return [np.broadcast_shapes(condition.shape, a.shape, b.shape)]


def convolution(inputs: Inputs, outputs: Outputs, options: WindowOptions) -> Sequence[Shape]:
    """Inputs: x [n, h, w, c], weights [o, kh, kw, c / groups] and maybe a bias [o]."""
    x, w = inputs[:2]
    (n, *size, depth), (out, *kernel, inner) = x.shape, w.shape
    require(len(size) == 2 and len(kernel) == 2, "expected four dimensions")
    require(depth % inner == 0 and out % (depth // inner) == 0, f"{depth} channels, but weights for {inner}")
    channels(inputs, w, out)
    return [(n, *windows(options, size, kernel), out)]


def depthwise(inputs: Inputs, outputs: Outputs, options: WindowOptions) -> Sequence[Shape]:
    """Inputs: x [n, h, w, c], weights [1, kh, kw, o] and maybe a bias [o]; o is a multiple of c."""
    x, w = inputs[:2]
    (n, *size, depth), (one, *kernel, out) = x.shape, w.shape
    require(len(size) == 2 and len(kernel) == 2 and one == 1, "expected four dimensions")
    require(out % depth == 0, f"{depth} channels don't divide {out} output channels")
    channels(inputs, w, out)
    return [(n, *windows(options, size, kernel), out)]


def transpose_convolution(inputs: Inputs, outputs: Outputs, options: WindowOptions) -> Sequence[Shape]:
    """Inputs: output shape, weights [o, kh, kw, c], x [n, h, w, c], maybe a bias [o]. Sizes are the output's own."""
    _, w, x = inputs[:3]
    (n, *size, depth), (out, *kernel, inner) = x.shape, w.shape
    require(len(size) == 2 and len(kernel) == 2 and inner == depth, "expected four dimensions")
    channels([x, w, *inputs[3:]], w, out)
    (_, *grown, _) = outputs[0].shape
    require(len(grown) == 2, "expected four dimensions")
    require(windows(options, tuple(grown), kernel) == size, "the input's size does not follow from the output's")
    return [(n, *grown, out)]


def pooling(inputs: Inputs, outputs: Outputs, options: PoolOptions) -> Sequence[Shape]:
    """x [n, h, w, c]."""
    n, *size, depth = inputs[0].shape
    require(len(size) == 2, "expected four dimensions")
    return [(n, *windows(options, size, options.window), depth)]


def fully_connected(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x of rows of `depth`, weights [units, depth] and maybe a bias [units]."""
    x, w, (y,) = inputs[0], inputs[1], outputs
    units, depth = w.shape
    require(depth > 0 and x.size % depth == 0, f"{x.size} values can't be split into rows of {depth}")
    channels(inputs, w, units)
    require(y.shape[-1] == units and y.size == x.size // depth * units, f"{y.size} outputs do not fit {units} units")
    return [y.shape]


def batch_matmul(inputs: Inputs, outputs: Outputs, options: BatchMatmulOptions) -> Sequence[Shape]:
    """Matrices in the last two dimensions, the others broadcast."""
    a, b = inputs
    (rows, depth), (inner, columns) = a.shape[-2:], b.shape[-2:]
    rows, depth = (depth, rows) if options.adj_x else (rows, depth)
    inner, columns = (columns, inner) if options.adj_y else (inner, columns)
    require(depth == inner, f"{depth} columns, but {inner} rows")
    return [(*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), rows, columns)]


def reduction(inputs: Inputs, outputs: Outputs, options: ReductionOptions) -> Sequence[Shape]:
    """Inputs: x and a constant of axes."""
    x = inputs[0]
    require(x.size > 0, f"{x.name[:60]!r} has no elements")
    axes = {axis_of(a, len(x.shape)) for a in numbers(inputs[1])}
    if options.keep_dims:
        return [tuple(1 if a in axes else n for a, n in enumerate(x.shape))]
    return [tuple(n for a, n in enumerate(x.shape) if a not in axes)]


def cumulative(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x and a constant of one axis."""
    x = inputs[0]
    require(x.size > 0, f"{x.name[:60]!r} has no elements")
    (axis,) = numbers(inputs[1])
    axis_of(axis, len(x.shape))
    return [x.shape]


def arg_max(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x and a constant of one axis."""
    x = inputs[0]
    (axis,) = numbers(inputs[1])
    axis = axis_of(axis, len(x.shape))
    return [(*x.shape[:axis], *x.shape[axis + 1 :])]


def concatenation(inputs: Inputs, outputs: Outputs, options: ConcatenationOptions) -> Sequence[Shape]:
    """Operands of one type and of equal sizes but along the axis."""
    rank = len(inputs[0].shape)
    axis = axis_of(options.axis, rank)
    others = {(*t.shape[:axis], *t.shape[axis + 1 :]) for t in inputs}
    require(
        len(others) == 1 and all(len(t.shape) == rank for t in inputs),
        "expected inputs of equal sizes along all other axes",
    )
    x = inputs[0].shape
    return [(*x[:axis], sum(t.shape[axis] for t in inputs), *x[axis + 1 :])]


def split(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """SPLIT has inputs axis and x, SPLIT_V x, sizes and axis; sizes are read from the outputs."""
    x = max(inputs, key=lambda t: (t.data is None, t.size))
    axis = axis_of(numbers(inputs[0] if len(inputs) == 2 else inputs[2])[0], len(x.shape))
    require(x is inputs[1 if len(inputs) == 2 else 0], "expected a computed operand")
    parts = [y.shape[axis] for y in outputs]
    require(sum(parts) == x.shape[axis], f"the parts {parts} do not add up to {x.shape[axis]}")
    return [(*x.shape[:axis], part, *x.shape[axis + 1 :]) for part in parts]


def slice_(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x and a constant of where to begin; sizes are read from the output."""
    x, (y,) = inputs[0], outputs
    begin = numbers(inputs[1])
    require(len(begin) == len(x.shape) == len(y.shape), "expected as many numbers as dimensions")
    require(
        all(b >= 0 and b + k <= n for b, k, n in zip(begin, y.shape, x.shape)),
        "the slice reaches outside of the tensor",
    )
    return [y.shape]


def strided_slice(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x and constants of begin, end and step of every axis; sizes are read from the output."""
    x, begin, step, (y,) = inputs[0], numbers(inputs[1]), numbers(inputs[3]), outputs
    require(len(begin) == len(step) == len(x.shape) == len(y.shape), "expected as many numbers as dimensions")
    for first, by, count, size in zip(begin, step, y.shape, x.shape):
        require(0 <= first < size and 0 <= first + (count - 1) * by < size, "the slice reaches outside of the tensor")
    return [y.shape]


def transpose(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x and a constant permutation of its axes."""
    x, order = inputs[0], numbers(inputs[1])
    require(sorted(order) == list(range(len(x.shape))), f"{order} is not an order of all axes")
    return [tuple(x.shape[a] for a in order)]


def reshape(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Input and output have as many elements."""
    x, (y,) = inputs[0], outputs
    require(x.size == y.size, f"{x.size} elements can't become {y.size}")
    return [y.shape]


def broadcast_to(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """The output's own shape, if x can be broadcast to it."""
    x, (y,) = inputs[0], outputs
    return [np.broadcast_shapes(x.shape, y.shape)]


def tile(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x and a constant of how often each axis is repeated."""
    x, times = inputs[0], numbers(inputs[1])
    require(len(times) == len(x.shape), "expected as many numbers as dimensions")
    return [tuple(n * t for n, t in zip(x.shape, times))]


def depth_to_space(inputs: Inputs, outputs: Outputs, options: BlockOptions) -> Sequence[Shape]:
    """x [n, h, w, c] with blocks of channels that become rows and columns."""
    (n, h, w, c), block = inputs[0].shape, options.block_size
    require(c % block**2 == 0, f"{c} channels can't be split into blocks of {block}")
    return [(n, h * block, w * block, c // block**2)]


def space_to_depth(inputs: Inputs, outputs: Outputs, options: BlockOptions) -> Sequence[Shape]:
    """x [n, h, w, c] with blocks of rows and columns that become channels."""
    (n, h, w, c), block = inputs[0].shape, options.block_size
    require(h % block == 0 and w % block == 0, f"{h} x {w} can't be split into blocks of {block}")
    return [(n, h // block, w // block, c * block**2)]


def pad(inputs: Inputs, outputs: Outputs, options: Options) -> Sequence[Shape]:
    """Inputs: x, a constant of (before, after) for each axis, and maybe a constant value."""
    x, amounts = inputs[0], np.reshape(numbers(inputs[1]), (-1, 2))
    require(
        len(amounts) == len(x.shape) and bool((amounts >= 0).all()), "expected two amounts of 0 or more for each axis"
    )
    if len(inputs) > 2:
        require(inputs[2].data is not None and inputs[2].size == 1, "expected one value")
    return [tuple(int(n + a + b) for n, (a, b) in zip(x.shape, amounts))]


def gather(inputs: Inputs, outputs: Outputs, options: GatherOptions) -> Sequence[Shape]:
    """Inputs: x and indices, which lie on the axis where they are constant."""
    x, indices = inputs[:2]
    axis = axis_of(options.axis, len(x.shape))
    if indices.data is not None:
        require(all(0 <= i < x.shape[axis] for i in numbers(indices)), "an index is outside of the axis")
    return [(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])]


def resize(inputs: Inputs, outputs: Outputs, options: ResizeOptions) -> Sequence[Shape]:
    """Inputs: x [n, h, w, c] and a constant of the height and width."""
    require(not (options.align_corners and options.half_pixel_centers), "alignCorners excludes halfPixelCenters")
    n, _, _, c = inputs[0].shape
    height, width = numbers(inputs[1])
    return [(n, height, width, c)]


def no_macs(inputs: Inputs, outputs: Outputs, options: Options) -> int:
    """Multiply-accumulates of an operator that multiplies no matrices. The other rules have those of the formula, zeros
    and padding among them."""
    return 0


def macs_by_output(inputs: Inputs, outputs: Outputs, options: Options) -> int:
    """Weights [o, ..., inner]: each output is a sum over all that one output channel has."""
    weights = inputs[1]
    return outputs[0].size * (weights.size // weights.shape[0])


def depthwise_macs(inputs: Inputs, outputs: Outputs, options: Options) -> int:
    """Weights [1, kh, kw, o]."""
    _, height, width, _ = inputs[1].shape
    return outputs[0].size * height * width


def macs_by_input(inputs: Inputs, outputs: Outputs, options: Options) -> int:
    """Of TRANSPOSE_CONV: each element of x is added to all that its channel reaches."""
    _, weights, x = inputs[:3]
    return x.size * (weights.size // weights.shape[-1])


def matmul_macs(inputs: Inputs, outputs: Outputs, options: BatchMatmulOptions) -> int:
    """Matrices in the last two dimensions."""
    return outputs[0].size * inputs[0].shape[-2 if options.adj_x else -1]
