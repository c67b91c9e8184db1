"""ADD, SUB and MUL of int8 in any family, with operands that are broadcast as they come: sums as one weighted sum
(linear_sum.py), products scaled in few instructions (scaling.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.linear_sum import linear_sum
from edgecompress_runtime.families.shared.scaling import scaled_twice, scaling
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.words import moved, rounded_high_product, shifted_right
from edgecompress_runtime.kernels import KERNELS
from edgecompress_runtime.kernels.arithmetic import clamp, i32
from edgecompress_runtime.kernels.binary import mul_int8
from edgecompress_runtime.kernels.strides import offset, row_count
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor

LARGEST = 255 * 255  # of a product


@inline
def summed(x: Word, y: Word, factors: Words, scale: Words) -> Word:
    """One element, not yet clamped. factors: slopes of both operands. scale: bias (0), multiplier, term, down."""
    _, multiplier, term, down = scale
    total = i32(i32(i32(x) * factors[0]) + i32(i32(y) * factors[1]))
    return shifted_right(i32(rounded_high_product(total, multiplier, i32(0)) + term), down)


@inline
def multiplied(x: Word, y: Word, factors: Words, scale: Words) -> Word:
    """factors: what is added to the operands."""
    bias, multiplier, term, down = scale
    product = i32(i32(i32(x) + factors[0]) * i32(i32(y) + factors[1]))
    return scaled_twice(i32(product + bias), multiplier, term, down)


def plain_run(one: Callable[..., Any]) -> Callable[..., None]:
    """A run of elements, one by one. one: `summed` or `multiplied`."""

    @inline
    def run(ends: Tuple, steps: Words, count: Word, factors: Words, scale: Words, bounds: Words) -> None:
        """ends: a, b, y. steps: of a and b, 0 or 1."""
        (a, b, y), (p, q), (low, high) = ends, steps, bounds
        even = i32(count & ~1)
        for i in range(i32(0), even, i32(2)):
            y[i] = clamp(one(a[i32(i * p)], b[i32(i * q)], factors, scale), low, high)
            j = i32(i + 1)
            y[j] = clamp(one(a[i32(j * p)], b[i32(j * q)], factors, scale), low, high)
        for i in range(even, count):
            y[i] = clamp(one(a[i32(i * p)], b[i32(i * q)], factors, scale), low, high)

    return run


def pairs(name: str, module: str, run: Callable[..., None]) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`; run: as that of `plain_run`."""

    def kernel(tensors: Tuple, geometry: Tuple, factors: Words, record: Pointer, down: Word, bounds: Words) -> None:
        """tensors: a, b, y. geometry: as in kernels/binary.py. record: bias, multiplier and term, in memory: with
        literals LLVM finds no SMMLAR."""
        a, b, y = tensors
        dims, a_strides, b_strides = geometry
        scale = record[0], record[1], record[2], down
        for row in range(row_count(dims)):
            ends = (
                moved(a, offset(row, dims, a_strides)),
                moved(b, offset(row, dims, b_strides)),
                moved(y, i32(row * dims[5])),
            )
            run(ends, (a_strides[5], b_strides[5]), dims[5], factors, scale, bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@dataclass(frozen=True)
class Pairs:
    """A family's kernels for sums and for products."""

    sums: Callable[..., None]
    products: Callable[..., None]

    def sum(self, kind: str, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
        """ADD or SUB; None where linear_sum.py finds no sum."""
        (call,), (y,) = KERNELS[kind](inputs, outputs, options), outputs
        if (found := linear_sum(call, y, rounded=True)) is None:
            return None
        # doubled sums instead of the doubled multiplier, which has no room in 32 bits with a sign
        slopes = 2 * found.slopes[0], 2 * found.slopes[1]
        record = np.array([0, found.multiplier // 2, found.term >> 32], np.int32)
        return [_step(self.sums, call.arguments, slopes, record, (found.down, found.bounds))]

    def product(self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options) -> list[Step] | None:
        """MUL; None for other elements than int8, and factors beyond what `scaling` holds."""
        (call,) = KERNELS["MUL"](inputs, outputs, options)
        if call.kernel is not mul_int8:
            return None
        arguments: tuple[Any, ...] = call.arguments
        *_, zeros, (multiplier, shift), bounds = arguments
        factor = np.array([multiplier]), np.array([shift])
        scales = scaling(np.zeros(1, np.int64), np.array([LARGEST]), *factor, zeros[2])
        if scales is None:
            return None
        record, down = scales.records()[0, :3], int(scales.down[0])
        return [_step(self.products, arguments, (-zeros[0], -zeros[1]), record, (down, bounds))]


def _step(
    kernel: Callable[..., None],
    ordinary: tuple[Any, ...],
    factors: tuple[int, int],
    record: np.ndarray,
    ends: tuple[int, tuple[int, int]],
) -> Step:
    """ordinary: arguments of the plain kernel. ends: down, bounds."""
    a, b, y, geometry = ordinary[:4]
    in_place = {t: 0 for t in (a, b) if t.data is None and t.shape == y.shape}
    return Step(kernel, ((a, b, y), geometry, factors, record, *ends), in_place)


PLAIN = Pairs(
    pairs("plain_sums", __name__, plain_run(summed)), pairs("plain_products", __name__, plain_run(multiplied))
)
plain_sums, plain_products = PLAIN.sums, PLAIN.products
