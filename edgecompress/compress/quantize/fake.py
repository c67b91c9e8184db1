"""Rounding that training sees through: integers forward, straight-through gradients backward.

Values are rounded once, to nearest, in training mode, and as the kernels round them in evaluation mode (`requantize`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecompress.compress.quantize.requantize import Scaling
from edgecompress.compress.quantize.weight_scales import BIAS_LIMITS, LIMIT, SMALLEST_RATIO
from edgecompress.graph.annotations import INTEGER_RANGE

LOWEST_SCALE = float(np.finfo(np.float32).tiny)


class _Round(torch.autograd.Function):
    """scale * clip(round(x / scale)), with the gradients of S. Esser et al., "Learned step size quantization", ICLR
    2020, equations 2 and 3, and their section 2.2's factor 1 / sqrt(elements of a sample * levels)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        step = float(scale)
        y = (x / step).round_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(x, y)
        ctx.step, ctx.low, ctx.high = step, low, high
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The scale's gradient, sum(grad * (y - x inside the range, else y)) / scale, as the difference of two inner
        products: no array is made but x's gradient."""
        x, y = ctx.saved_tensors
        to_x = torch.ops.aten.hardtanh_backward(grad, x, ctx.low * ctx.step, ctx.high * ctx.step)
        to_scale = None
        if ctx.needs_input_grad[1]:
            factor = (max(x.numel() // max(x.shape[0] if x.ndim else 1, 1), 1) * max(ctx.high, 1.0)) ** -0.5
            to_scale = (_inner(grad, y) - _inner(to_x, x)) * (factor / ctx.step)
        return to_x, to_scale, None, None


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """sum(a * b), without a product in memory where both lie in the same order."""
    if a.ndim == 4 and not a.is_contiguous():
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


class Range(nn.Module):
    """The scale that all values of a group share, int8 or int16 with a fixed zero point.

    It is learned as the logarithm of its ratio to where it began, so that a step means the same for all groups.
    """

    start: Tensor

    def __init__(self, scale: float, zero_point: int, learned: bool, dtype: ir.DataType = ir.DataType.INT8) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor(scale, dtype=torch.float32))
        self.zero_point, self.dtype = zero_point, dtype
        self.low, self.high = (float(end - zero_point) for end in INTEGER_RANGE[dtype])
        self.log_ratio = nn.Parameter(torch.zeros(())) if learned else None

    @property
    def scale(self) -> Tensor:
        """The scale as it is now, a float32 scalar that gradients pass through while it is learned."""
        return self.start if self.log_ratio is None else self.start * self.log_ratio.exp()

    def forward(self, x: Tensor) -> Tensor:
        """float32 values of any shape, rounded to the scale's multiples that its integers reach."""
        return _Round.apply(x.float(), self.scale, self.low, self.high)

    def as_kernels(self, x: Tensor, scaling: Scaling) -> Tensor:
        """The value rounded as an int8 kernel rounds it, without gradients."""
        scale = self.scale.detach()
        return scaling(x, scale).clamp_(self.low, self.high).float().mul_(scale)


class Through(nn.Module):
    """A value that is rounded by a Range, which it may share with other values.

    scaling: how a kernel rounds the value, for evaluation mode; None rounds as in training.
    """

    def __init__(self, range_: Range, scaling: Scaling | None = None) -> None:
        super().__init__()
        self.range, self.scaling = range_, scaling

    def forward(self, x: Tensor) -> Tensor:
        """The value rounded as training does it or, in evaluation mode with a scaling, as the kernel does."""
        if self.training or self.scaling is None:
            return self.range(x)
        return self.range.as_kernels(x, self.scaling)


class Weight(nn.Module):
    """A weight as narrow-range int8, whose scales follow its largest magnitudes (`weight_scales.quantize_weight`).

    axis: the axis of its channels, or None. mask: marks the weights that stay (Sparsity), or None.
    """

    mask: Tensor | None

    def __init__(self, axis: int | None, mask: np.ndarray | None) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("mask", None if mask is None else torch.from_numpy(mask.astype(np.float32)))
        self.bias: nn.Parameter | None = None  # what has to fit at this scale times the input's
        self.input: Range | None = None

    def scale(self, weight: Tensor) -> Tensor:
        """The scales, float32 [channels] or [1]."""
        largest = self.own_scale(weight)
        if self.bias is not None and self.input is not None:
            needed = self.stored_bias(self.bias).detach().abs() / (
                self.input.scale.detach() * BIAS_LIMITS[self.input.dtype]
            )
            largest = torch.maximum(largest, needed if self.axis is not None else needed.max())
        largest = torch.maximum(largest, largest.max() * SMALLEST_RATIO)
        return torch.where(largest == 0, torch.ones_like(largest), largest).clamp(min=LOWEST_SCALE)

    def stored_bias(self, bias: Tensor) -> Tensor:
        """What will be stored of the layer's bias."""
        return bias

    def own_scale(self, weight: Tensor) -> Tensor:
        """What the weights alone ask for."""
        axes = [i for i in range(weight.ndim) if i != self.axis]
        return weight.detach().abs().amax(axes).reshape(-1) / LIMIT

    def forward(self, weight: Tensor) -> Tensor:
        """The float32 weight rounded to its int8 values; the gradient passes as if it were not."""
        kept = weight if self.mask is None else weight * self.mask
        scale = along(self.scale(kept), kept, self.axis)
        rounded = (kept.detach() / scale).round().clamp(-LIMIT, LIMIT) * scale
        return kept + (rounded - kept).detach()


class Bias(nn.Module):
    """A bias as int32 at the input's scale times the weight's."""

    def __init__(self, source: Range, scales: Callable[[], Tensor]) -> None:
        super().__init__()
        self.source, self.scales = source, scales

    def forward(self, bias: Tensor) -> Tensor:
        """The float32 bias [channels] rounded to multiples of the accumulator's scale."""
        step = self.source.scale.detach() * self.scales().detach()
        return bias + ((bias.detach() / step).round() * step - bias).detach()


def along(scale: Tensor, weight: Tensor, axis: int | None) -> Tensor:
    """[channels] -> a shape that multiplies the weight along its axis."""
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    return scale.reshape(shape)
