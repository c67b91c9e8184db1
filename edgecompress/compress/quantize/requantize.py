"""How int8 kernels rescale their accumulators, for the evaluation mode of fake quantization.

A layer's output arrives as a float; what the kernel has is an integer, `step` times which is that float. KERNELS are
the two ways in use to scale it to the output: fixed-point numbers with two roundings, as LiteRT's reference kernels,
TFLite Micro and the runtime do (gemmlowp), or float32 and one rounding, as XNNPACK does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# (float output of the layer, the output's scale) -> whole numbers, float64: stored - zero point, not clamped
Scaling = Callable[[Tensor, Tensor], Tensor]
HALF = 2.0**-12  # nearer than this to a half is one: next to it come others at 1 / pixels of a window


@dataclass(frozen=True)
class Accumulator:
    """The sum that a layer's kernel computes.

    step: gives float64 [channels] along `axis`, or [1] with None: what one unit of the accumulator is worth.
    count: summands that the kernel's multiplier divides by (MEAN), else 1.
    whole: False where the float may also be a bound, which is no multiple of the step.
    """

    step: Callable[[], Tensor]
    axis: int | None = None
    count: int = 1
    whole: bool = True

    def units(self, x: Tensor, step: Tensor) -> Tensor:
        """float64: the accumulator that the float stands for."""
        acc = x.double() / _along(step, x, self.axis)
        return acc.round_() if self.whole else acc


Kernels = Callable[[Accumulator], Scaling]


def round_half_away(x: Tensor) -> Tensor:
    """Rounds to nearest, halves away from zero, in place."""
    return x.add_(torch.copysign(torch.full((), 0.5, dtype=x.dtype, device=x.device), x)).trunc_()


def rounded(x: Tensor, scale: Tensor) -> Tensor:
    """QUANTIZE, and functions that have a table: to nearest, halves away from zero."""
    return round_half_away(x.double() / scale)


def averaged(zero_point: int) -> Scaling:
    """AVERAGE_POOL_2D: what is stored to nearest, halves away from zero. Floats aren't sure of being a half."""

    def scaling(x: Tensor, scale: Tensor) -> Tensor:
        halves = (x.double() / scale).add_(zero_point).mul_(2)
        near = halves.round()
        return round_half_away(torch.where((halves - near).abs_() < HALF, near, halves).mul_(0.5)).sub_(zero_point)

    return scaling


def fixed_point(accumulator: Accumulator) -> Scaling:
    """As the runtime's `requantize` (kernels/arithmetic.py) does it: rounded at 2**31, halves up, then at the shift."""

    def scaling(x: Tensor, scale: Tensor) -> Tensor:
        step = accumulator.step().double()
        real = step * accumulator.count / scale.double()
        acc = accumulator.units(x, step)
        multiplier, shift = _multiplier(real, accumulator.count)
        up, down = 2.0 ** (shift.clamp(min=0) - 31), 2.0 ** shift.clamp(max=0)
        high = acc.mul_(_along(multiplier * up, x, accumulator.axis)).add_(0.5).floor_()
        return round_half_away(high.mul_(_along(down, x, accumulator.axis)))

    return scaling


def floating_point(accumulator: Accumulator) -> Scaling:
    """XNNPACK: float32 accumulator times a float32 factor, to nearest, halves to even."""

    def scaling(x: Tensor, scale: Tensor) -> Tensor:
        step = accumulator.step().double()
        factor = (step / scale.double()).float()
        acc = accumulator.units(x, step)
        return acc.float().mul_(_along(factor, x, accumulator.axis)).round_().double()

    return scaling


KERNELS: dict[str, Kernels] = {"reference": fixed_point, "xnnpack": floating_point}


def _multiplier(real: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """float64 multiplier and shift of real / count, as `quantize_multiplier` and, for a mean, MEAN have them."""
    fraction, shift = torch.frexp(real)
    multiplier = (fraction * 2.0**31 + 0.5).floor()
    over = multiplier == 2.0**31
    multiplier, shift = torch.where(over, multiplier / 2, multiplier), shift + over
    if count == 1:
        return multiplier, shift.double()
    # 1 / count joins the multiplier, with as many bits as fit (reference/reduce.h QuantizedMeanOrSum)
    headroom = (31 + shift).clamp(max=min(count.bit_length() - 1, 32))
    wide = multiplier.long() << headroom.long()
    return (wide // count).double(), (shift - headroom).double()


def _along(numbers: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """[channels] or [1] -> a shape that goes with x's."""
    if axis is None or numbers.numel() == 1:
        return numbers.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return numbers.reshape(shape)
