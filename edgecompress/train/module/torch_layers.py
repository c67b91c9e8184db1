"""What each ONNX operator computes, in torch: convolutions, pools, normalisations, recurrent layers, Resize."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecompress.graph.resize import COORDINATES, ROUNDING, interpolation
from edgecompress.train.module.torch_operators import Function, function, integer, number, parameter

CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d}
TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d}
MAX_POOLS = {3: F.max_pool1d, 4: F.max_pool2d}
AVERAGE_POOLS = {3: F.avg_pool1d, 4: F.avg_pool2d}
BATCHNORM_MOMENTUM = 0.1  # share of a batch in the running statistics, as torch has it


def _pads(node: ir.Node) -> tuple[list[int], list[int]]:
    pads = list(node.attributes.get_ints("pads"))
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]


def _torch_order(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """F.pad counts from the last dimension."""
    return [n for pair in zip(reversed(before), reversed(after)) for n in pair]


def _shape(value: ir.Value) -> list[int]:
    return [int(d) for d in value.shape]


@function("Conv")
def convolution(node: ir.Node) -> Function:
    before, after = _pads(node)
    convolve = functools.partial(
        CONVOLUTIONS[len(before) + 2],
        stride=node.attributes.get_ints("strides"),
        dilation=node.attributes.get_ints("dilations"),
        groups=integer(node, "group", 1),
    )
    if before == after:
        return functools.partial(convolve, padding=tuple(before))
    amounts = _torch_order(before, after)
    return lambda x, weight, bias: convolve(F.pad(x, amounts), weight, bias)


@function("ConvTranspose")
def transposed_convolution(node: ir.Node) -> Function:
    before, after = _pads(node)
    convolve = functools.partial(
        TRANSPOSED[len(before) + 2],
        stride=node.attributes.get_ints("strides"),
        output_padding=node.attributes.get_ints("output_padding"),
        groups=integer(node, "group", 1),
        dilation=node.attributes.get_ints("dilations"),
    )
    if before == after:
        return functools.partial(convolve, padding=tuple(before))
    amounts = _torch_order([-n for n in before], [-n for n in after])
    return lambda x, weight, bias: F.pad(convolve(x, weight, bias), amounts)


@function("MaxPool")
def max_pool(node: ir.Node) -> Function:
    before, after = _pads(node)
    kernel = node.attributes.get_ints("kernel_shape")
    pool = functools.partial(
        MAX_POOLS[len(kernel) + 2],
        kernel_size=kernel,
        stride=node.attributes.get_ints("strides"),
        dilation=node.attributes.get_ints("dilations"),
    )
    if before == after and all(2 * n <= k for n, k in zip(before, kernel)):  # torch refuses larger pads
        return functools.partial(pool, padding=tuple(before))
    amounts = _torch_order(before, after)
    return lambda x: pool(F.pad(x, amounts, value=float("-inf")))


@function("AveragePool")
def average_pool(node: ir.Node) -> Function:
    """Any padding, dilation and ceil_mode: a sum over the window, divided by how much of it counts."""
    before, after = _pads(node)
    kernel, strides = list(node.attributes.get_ints("kernel_shape")), list(node.attributes.get_ints("strides"))
    dilations, include = list(node.attributes.get_ints("dilations")), bool(integer(node, "count_include_pad"))
    if (
        before == after
        and set(dilations) == {1}
        and not integer(node, "ceil_mode")
        and all(2 * n <= k for n, k in zip(before, kernel))
    ):
        return functools.partial(
            AVERAGE_POOLS[len(kernel) + 2],
            kernel_size=kernel,
            stride=strides,
            padding=before,
            count_include_pad=include,
        )
    size, out = _shape(node.inputs[0])[2:], _shape(node.outputs[0])[2:]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations)]
    beyond = [max((o - 1) * s + k - n - b, 0) for o, s, k, n, b in zip(out, strides, spans, size, before)]
    amounts = _torch_order(before, beyond)
    window = functools.partial(CONVOLUTIONS[len(kernel) + 2], stride=strides, dilation=dilations)
    counted = torch.ones(1, 1, *size)
    if include:
        counted = F.pad(counted, _torch_order(before, after), value=1.0)
        counted = F.pad(counted, _torch_order([0] * len(after), [max(b - a, 0) for a, b in zip(after, beyond)]))
    else:
        counted = F.pad(counted, amounts)
    ones = torch.ones(1, 1, *kernel)
    parts = window(counted, ones)

    def pool(x: Tensor) -> Tensor:
        padded = F.pad(x, amounts).flatten(0, 1).unsqueeze(1)
        sums = window(padded, ones.to(x.device)) / parts.to(x.device)
        return sums.reshape(*x.shape[:2], *sums.shape[2:])

    return pool


@function("Gemm")
def gemm(node: ir.Node) -> Function:
    return F.linear  # canonical: transB = 1, transA = 0, alpha = beta = 1


@function("BatchNormalization")
class BatchNorm(nn.Module):
    """Over the batch's statistics in training, which move the running ones; over those in evaluation.

    processes, over_processes: how many share the batch, and a function that gives all of them the mean of their
    tensors, through which gradients go; None: the batch is this one's alone.
    """

    def __init__(self, node: ir.Node) -> None:
        super().__init__()
        self.epsilon = number(node, "epsilon", 1e-5)
        self.processes, self.over_processes = 1, None

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        if self.training and self.over_processes is not None:
            return self._shared(x, scale, bias, mean, variance)
        return F.batch_norm(x, mean, variance, scale, bias, self.training, BATCHNORM_MOMENTUM, self.epsilon)

    def _shared(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """F.batch_norm with the statistics of all processes' parts, which are equally large."""
        axes, by_channel = [i for i in range(x.ndim) if i != 1], (1, -1, *[1] * (x.ndim - 2))
        centre = self.over_processes(x.float().mean(axes))
        centred = x.float() - centre.view(by_channel)
        spread = self.over_processes(centred.square().mean(axes))
        count = self.processes * x.numel() // x.shape[1]
        with torch.no_grad():
            mean.lerp_(centre, BATCHNORM_MOMENTUM)
            variance.lerp_(spread * count / (count - 1), BATCHNORM_MOMENTUM)
        factor = scale * (spread + self.epsilon).rsqrt()
        return (centred * factor.view(by_channel) + bias.view(by_channel)).to(x.dtype)


@function("InstanceNormalization")
def instance_normalization(node: ir.Node) -> Function:
    epsilon = number(node, "epsilon", 1e-5)
    return lambda x, scale, bias: torch.group_norm(x, x.shape[1], scale, bias, epsilon)


@function("LayerNormalization")
def layer_normalization(node: ir.Node) -> Function:
    axis, epsilon = integer(node, "axis", -1), number(node, "epsilon", 1e-5)

    def normalise(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        over = x.shape[axis:]
        if scale.shape == over:
            return F.layer_norm(x, over, scale, bias, epsilon)
        y = F.layer_norm(x, over, eps=epsilon) * scale
        return y if bias is None else y + bias

    return normalise


@function("Resize")
def resize(node: ir.Node) -> Function:
    """A matrix [out, in] for each dimension that changes: exact for every rounding and coordinate mode of ONNX."""
    before, after = _shape(node.inputs[0]), _shape(node.outputs[0])
    text = node.attributes.get_string
    coordinates = COORDINATES[text("coordinate_transformation_mode", "half_pixel")]
    nearest = ROUNDING[text("nearest_mode", "round_prefer_floor")] if text("mode", "nearest") == "nearest" else None
    given = parameter(node, 2)
    ratios = [b / a for a, b in zip(before, after)] if given is None or not given.size else [float(s) for s in given]
    matrices = []
    for axis, (n, out, ratio) in enumerate(zip(before, after, ratios)):
        if n != out or ratio != 1:
            positions = coordinates(np.arange(out, dtype=np.float64), ratio, n, out)
            matrices.append((axis, torch.from_numpy(interpolation(positions, n, nearest))))

    def sample(x: Tensor, *parameters: Tensor) -> Tensor:
        for axis, matrix in matrices:
            x = torch.matmul(x.movedim(axis, -1), matrix.to(x.device).T).movedim(-1, axis)
        return x

    return sample


@function("LSTM")
def lstm(node: ir.Node) -> Function:
    """Gates i, o, f, c (ONNX LSTM): C = f C + i c, H = o tanh(C)."""

    def step(x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        gates = x + F.linear(state[0], weight, bias)
        i, o, f, c = gates.chunk(4, -1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(c)
        return [torch.sigmoid(o) * torch.tanh(cell), cell]

    return functools.partial(_recurrent, _directions(node), step, 2)


@function("GRU")
def gru(node: ir.Node) -> Function:
    """Gates z, r, h (ONNX GRU): H = (1 - z) h + z H; the reset gate before or after the recurrent product."""
    after = bool(integer(node, "linear_before_reset"))

    def step(x: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        size, hidden = state[0].shape[-1], state[0]
        z, r = torch.sigmoid(x[:, : 2 * size] + F.linear(hidden, weight[: 2 * size], bias[: 2 * size])).chunk(2, -1)
        if after:
            recurrent = r * F.linear(hidden, weight[2 * size :], bias[2 * size :])
        else:
            recurrent = F.linear(r * hidden, weight[2 * size :], bias[2 * size :])
        candidate = torch.tanh(x[:, 2 * size :] + recurrent)
        return [(1 - z) * candidate + z * hidden]

    return functools.partial(_recurrent, _directions(node), step, 1)


def _directions(node: ir.Node) -> list[bool]:
    """Whether each direction runs backwards."""
    kinds = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    return kinds[node.attributes.get_string("direction", "forward")]


def _recurrent(
    directions: list[bool],
    step,
    states: int,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: None = None,
    *initial: Tensor | None,
) -> list[Tensor]:
    """x [steps, batch, in] -> Y [steps, directions, batch, hidden], and the last states [directions, batch, hidden]."""
    batch, hidden = x.shape[1], r.shape[-1]
    outputs, finals = [], []
    for d, backwards in enumerate(directions):
        bias, recurrent_bias = (torch.zeros_like(w[d, :, 0]),) * 2 if b is None else b[d].chunk(2)
        projected = F.linear(x, w[d], bias)
        begin = [initial[s] if s < len(initial) else None for s in range(states)]
        state = [x.new_zeros(batch, hidden) if v is None else v[d].expand(batch, hidden) for v in begin]
        rows = []
        for row in reversed(projected.unbind()) if backwards else projected.unbind():
            state = step(row, state, r[d], recurrent_bias)
            rows.append(state[0])
        outputs.append(torch.stack(rows[::-1] if backwards else rows))
        finals.append(state)
    return [torch.stack(outputs, 1), *(torch.stack(last) for last in zip(*finals))]
