"""QUANTIZE of float32, a vector at a time; bit for bit as kernels/quantize.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types

from edgecompress_runtime.families.shared.division import LEAST_ELEMENTS, divided, part, ranges
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.vectors import splat
from edgecompress_runtime.families.shared.words import BYTE, INT8_POINTER, LONG, WORD, N, load, store
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_vectors import clamped, words
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.registry import KERNELS
from edgecompress_runtime.llvm.typed_numba import Pointer, Word, llvm_code
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor

FAR = 1000.0  # int8 ends before; so that it fits an int32


@cache
def _quantize_kernel(variant: Variant) -> Callable[..., None]:
    lanes, floats = variant.lanes, ir.VectorType(ir.FloatType(), variant.lanes)

    @llvm_code(types.void(types.CPointer(types.float32), INT8_POINTER, N, types.float32, N))
    def step(b: ir.IRBuilder, x: ir.Value, y: ir.Value, at: ir.Value, scale: ir.Value, zero: ir.Value) -> None:
        at = b.sext(at, LONG)
        real = b.fdiv(load(b, x, b.mul(at, LONG(4)), floats, 4), splat(b, scale, lanes))
        for limit, sign in ((-FAR, ">"), (FAR, "<")):
            bound = floats([limit] * lanes)
            real = b.select(b.fcmp_ordered(sign, real, bound), real, bound)
        whole = b.fptosi(real, words(variant))
        rest = b.fsub(real, b.sitofp(whole, floats))
        up = b.zext(b.fcmp_ordered(">=", rest, floats([0.5] * lanes)), words(variant))
        down = b.zext(b.fcmp_ordered("<=", rest, floats([-0.5] * lanes)), words(variant))
        stored = b.add(b.sub(b.add(whole, up), down), splat(b, zero, lanes))
        store(b, b.trunc(clamped(b, stored, (WORD(-128), WORD(127))), ir.VectorType(BYTE, lanes)), y, at, 1)

    def kernel(x: Pointer, y: Pointer, count: Word, scale: Any, zero: Word) -> None:
        for start in range(i32(0), count, i32(lanes)):
            step(x, y, min(i32(start), i32(count - lanes)), scale, zero)  # the last again, if need be

    kernel.__name__ = "quantize"
    return kernel


def prepare_quantize(
    variant: Variant, threads: int, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
) -> list[Step] | None:
    """Threads share its elements. None for int8, and for fewer elements than a vector has."""
    (call,) = KERNELS["QUANTIZE"](inputs, outputs, options)
    if inputs[0].is_int8 or inputs[0].size < variant.lanes:
        return None
    arguments: tuple[Any, ...] = call.arguments
    x, y, count, *rest = arguments
    whole = threads == 1 or count < LEAST_ELEMENTS
    return [
        divided(
            [
                Step(_quantize_kernel(variant), (part(x, first), part(y, first), last - first, *rest))
                for first, last in ([(0, count)] if whole else ranges(count, threads))
            ]
        )
    ]
