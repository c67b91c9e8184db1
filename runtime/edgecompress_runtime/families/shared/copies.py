"""Operators that move bytes in runs, with a family's way of copying one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgecompress_runtime.families.shared.family import Prepare
from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels import KERNELS
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.kernels.movement import strided_copy
from edgecompress_runtime.kernels.registry import Call
from edgecompress_runtime.llvm.typed_numba import Pointer, Words
from edgecompress_runtime.options import Options
from edgecompress_runtime.plan import Tensor

KINDS = (
    "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "PAD", "RESHAPE", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V",
    "STRIDED_SLICE", "TILE", "TRANSPOSE",
)  # fmt: skip
SHORTEST = 4  # bytes of a run


def run_copies(name: str, module: str, copy: Callable[..., Any]) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`. copy(source, target, n): of n bytes, inlined."""

    def kernel(x: Pointer, y: Pointer, dims: Words, x_strides: Words, y_strides: Words) -> None:
        """As `movement.strided_copy`, of runs without gaps."""
        for i in range(dims[0]):
            for j in range(dims[1]):
                for k in range(dims[2]):
                    for m in range(dims[3]):
                        x_at = i32(i * x_strides[0] + j * x_strides[1] + k * x_strides[2] + m * x_strides[3])
                        y_at = i32(i * y_strides[0] + j * y_strides[1] + k * y_strides[2] + m * y_strides[3])
                        source, target = moved(x, x_at), moved(y, y_at)
                        for n in range(dims[4]):
                            copy(moved(source, i32(n * x_strides[4])), moved(target, i32(n * y_strides[4])), dims[5])

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@dataclass(frozen=True)
class Copies:
    """kernel: of `run_copies`."""

    kernel: Callable[..., None]

    def rows(self) -> dict[str, Prepare]:
        """For a family's table."""
        return {kind: partial(self._prepared, kind) for kind in KINDS}

    def _prepared(
        self, kind: str, inputs: Sequence[Any], outputs: Sequence[Tensor], options: Options
    ) -> list[Step] | None:
        """None where no call copies runs."""
        calls = KERNELS[kind](inputs, outputs, options)
        if not any(map(_of_runs, calls)):
            return None
        return [Step(self.kernel, c.arguments[:5]) if _of_runs(c) else Step(c.kernel, c.arguments) for c in calls]


def _of_runs(call: Call) -> bool:
    if call.kernel is not strided_copy:
        return False
    arguments: tuple[Any, ...] = call.arguments
    x, _, dims, x_strides, y_strides, *starts = arguments
    single = x.tensor.dtype.itemsize == 1 and x_strides[5] == y_strides[5] == 1
    return single and dims[5] >= SHORTEST and starts == [0, 0]
