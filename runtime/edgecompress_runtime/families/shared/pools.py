"""MAX_POOL_2D of int8 with a family's block: the largest of a window, some channels at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgecompress_runtime.families.shared.step import Step
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels import KERNELS
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Tuple, Words
from edgecompress_runtime.options import PoolOptions
from edgecompress_runtime.plan import Tensor


def max_pools(name: str, module: str, block: Callable[..., Any], width: int) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`. block(x, window, y, bounds): `width` channels;
    window: rows, bytes from one to the next, columns, bytes from one to the next."""

    def kernel(tensors: Tuple, shapes: Tuple, window: Tuple, bounds: Words) -> None:
        """tensors: x, y. shapes, window, bounds: as of `kernels.pooling.max_pool_2d`."""
        (x, y), (x_shape, y_shape), (kernel, strides, pads) = tensors, shapes, window
        images, height, width_of_x, channels = x_shape
        _, out_h, out_w, _ = y_shape
        for n in range(images):
            for out_y in range(out_h):
                top = i32(out_y * strides[0] - pads[0])
                first_y = max(top, i32(0))
                rows = i32(min(i32(top + kernel[0]), height) - first_y)
                line = moved(x, i32(i32(n * height + first_y) * width_of_x * channels))
                target = moved(y, i32(i32(n * out_h + out_y) * out_w * channels))
                for out_x in range(out_w):
                    left = i32(out_x * strides[1] - pads[1])
                    first_x = max(left, i32(0))
                    columns = i32(min(i32(left + kernel[1]), width_of_x) - first_x)
                    source, end = moved(line, i32(first_x * channels)), moved(target, i32(out_x * channels))
                    part = rows, i32(width_of_x * channels), columns, channels
                    for number in range(i32(i32(channels + width - 1) // i32(width))):
                        c = min(i32(number * width), i32(channels - width))  # the last again, if need be
                        block(moved(source, c), part, moved(end, c), bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@dataclass(frozen=True)
class MaxPools:
    """By channels of a block, the widest first: kernels of `max_pools`."""

    kernels: dict[int, Callable[..., None]]

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Tensor], options: PoolOptions) -> list[Step] | None:
        """None for other elements than int8, and for fewer channels than a block has."""
        x, (y,) = inputs[0], outputs
        kernel = next((k for width, k in self.kernels.items() if width <= x.shape[3]), None)
        if not x.is_int8 or kernel is None:
            return None
        (call,) = KERNELS["MAX_POOL_2D"](inputs, outputs, options)
        return [Step(kernel, ((x, y), *call.arguments[2:]))]
