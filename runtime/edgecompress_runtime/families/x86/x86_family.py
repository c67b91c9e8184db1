"""The family of x86: which kernel calls each operator of a plan becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from edgecompress_runtime.families.shared.family import Family, joined
from edgecompress_runtime.families.shared.float_blocks import FloatUnit
from edgecompress_runtime.families.shared.float_kernels import float_kernels
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.x86 import x86_addition as addition
from edgecompress_runtime.families.x86 import x86_convolution as convolution
from edgecompress_runtime.families.x86 import x86_depthwise as depthwise
from edgecompress_runtime.families.x86 import x86_pooling as pooling
from edgecompress_runtime.families.x86 import x86_quantize as quantization
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.plan import Tensor

# (variant, threads, inputs, outputs, options) -> steps, or None where the ordinary kernel has to do it
Prepare = Callable[[Variant, int, Sequence[Any], Sequence[Tensor], Any], list[Step] | None]


def _undivided(prepare: Callable[..., list[Step] | None]) -> Prepare:
    return lambda variant, threads, *layer: prepare(variant, *layer)


BLOCKED: dict[str, Prepare] = {
    "CONV_2D": convolution.prepare_conv,
    "DEPTHWISE_CONV_2D": depthwise.prepare_depthwise,
    "FULLY_CONNECTED": convolution.prepare_fully_connected,
    "ADD": partial(addition.prepare_sum, "ADD"),
    "SUB": partial(addition.prepare_sum, "SUB"),
    "QUANTIZE": quantization.prepare_quantize,
    **{kind: _undivided(partial(pooling.prepare_pool, kind)) for kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D")},
    **{kind: _undivided(partial(pooling.prepare_reduction, kind)) for kind in ("MEAN", "SUM")},
}


@cache
def x86_family(variant: Variant, threads: int = 1) -> Family:
    """The family of a variant. threads: how many threads share its large layers."""
    own = {kind: partial(prepare, variant, threads) for kind, prepare in BLOCKED.items()}
    floats = float_kernels(FloatUnit(variant.lanes, variant.registers), threads)
    return Family(f"x86 {variant.name}", joined(own, floats))
