"""A transposed convolution as another one, whose channels are the pixels of a block: for that there are fast kernels.

Of y = TRANSPOSE_CONV(x) with stride s and padding p in front, pixel s * q + r reads inputs q + (r + p) // s - t with
the weights (r + p) % s + s * t, for t from 0 on. So for each r there is a convolution of stride 1. All of them together
are one with s * s times as many channels, behind which DEPTH_TO_SPACE puts pixels where they belong. Where s does not
divide the window, some weights are zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.options import BlockOptions, ConvolutionOptions, TransposeConvolutionOptions
from edgecompress_runtime.plan import Operator, Plan, Tensor


def with_convolutions(plan: Plan) -> Plan:
    """The plan with convolutions in place of transposed ones of int8 with constant weights, one stride for rows and
    columns, and an output of whole blocks."""
    tensors, operators = list(plan.tensors), []
    for operator in plan.operators:
        operators += list(_operators(tensors, operator)) or [operator]
    return replace(plan, tensors=tuple(tensors), operators=tuple(operators))


def _operators(tensors: list[Tensor], operator: Operator) -> Iterator[Operator]:
    """What stands for an operator, and needs `tensors` more; nothing where it stays."""
    options = operator.options
    if operator.kind != "TRANSPOSE_CONV" or not isinstance(options, TransposeConvolutionOptions):
        return
    indices = [i for i in operator.inputs[1:] if i >= 0]
    (w, x, *bias), y = [tensors[i] for i in indices], tensors[operator.outputs[0]]
    stride, (height, width) = options.strides[0], y.shape[1:3]
    if not (x.is_int8 and y.is_int8) or w.data is None or w.zero_point.any() or any(b.data is None for b in bias):
        return
    if x.shape[0] != 1 or options.strides[1] != stride or height % stride or width % stride:
        return
    reach = (height // stride, width // stride)
    pads = padding(options.padding, (height, width), reach, w.shape[1:3], options.strides)
    taps = [_taps(k, stride, p) for k, p in zip(w.shape[1:3], pads)]
    (rows, columns), outputs = ([t for t, _ in taps]), w.shape[0]
    padded = np.pad(w.data, ((0, 0), (0, 1), (0, 1), (0, 0)))  # a zero for what no weight is for, at -1
    # [row in block, window's row, column in block, window's column] of the weights
    picked = padded[:, rows[:, :, None, None], columns[None, None], :]
    weights = picked.transpose(1, 3, 0, 2, 4, 5).reshape(-1, rows.shape[1], columns.shape[1], w.shape[3])
    blocks = stride * stride
    scale = np.tile(np.broadcast_to(w.scale, outputs), blocks)
    deep = (1, *reach, blocks * outputs)
    made = [
        Tensor(w.name, weights.shape, w.dtype, scale, np.zeros(len(scale), np.int32), 0, np.ascontiguousarray(weights)),
        *(
            replace(b, shape=(len(scale),), data=np.tile(b.data.reshape(-1), blocks))
            for b in bias
            if b.data is not None
        ),
        replace(y, name=f"{y.name} in blocks", shape=deep),
    ]
    first = len(tensors)
    tensors += made
    front = taps[0][1], taps[1][1]
    convolution = ConvolutionOptions(front, 1, 1, options.fused_activation_function)
    result = first + len(made) - 1 if stride > 1 else operator.outputs[0]
    yield Operator("CONV_2D", (indices[1], first, *range(first + 1, first + 1 + len(bias))), (result,), convolution)
    if stride > 1:
        yield Operator("DEPTH_TO_SPACE", (result,), operator.outputs, BlockOptions(stride))


def _taps(kernel: int, stride: int, pad: int) -> tuple[np.ndarray, int]:
    """int64 [stride, window]: the place of each weight of a block's rows, -1 where there is none; and the rows in front
    of the image that the window reaches into."""
    reads = []
    for row in range(stride):
        turn, phase = divmod(row + pad, stride)
        reads.append({turn - t: phase + stride * t for t in range(-(-(kernel - phase) // stride))})
    every: Sequence[int] = [0, *(place for read in reads for place in read)]
    window = range(min(every), max(every) + 1)
    return np.array([[read.get(place, -1) for place in window] for read in reads]), -window.start
