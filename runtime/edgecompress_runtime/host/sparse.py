"""The kernels of convolutions and fully connected layers whose weights are mostly zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from edgecompress_runtime.host.blocks import Shape
from edgecompress_runtime.host.copies import moved_words, padded_copy
from edgecompress_runtime.host.sparse_blocks import sparse_block
from edgecompress_runtime.host.variants import Variant
from edgecompress_runtime.host.vectors import FIELDS
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.primitives.words import moved


@cache
def sparse(variant: Variant, shape: Shape, tail: int, sums: int, picks: bool) -> Callable[..., None]:
    """The kernel that takes only the steps in which a vector of channels has weights that are not zero.

    tail: channels of the last vector. sums, picks: of `sparse_block`.
    """
    lanes, pixels = variant.lanes, shape.pixels
    step_bytes = variant.bytes * (2 if picks else 1)
    copied = padded_copy(variant, variant.element)
    block, last_block = (sparse_block(variant, replace(shape, tail=count), sums, picks) for count in (lanes, tail))

    def kernel(x, w, places, starts, records, y, padded, images, image, size, pads, zero, out, strides, low, high):
        """w, places, starts: of `layout.nonzero_steps` or `picked_steps`. The rest: as in `blocked`."""
        out_h, out_w, out_channels = out
        vectors = i32(i32(out_channels + lanes - 1) // i32(lanes))
        for n in range(images):
            copied(moved(x, i32(n * image[0] * image[1] * image[2])), padded, image, size, pads, zero)
            for v in range(vectors):
                first = starts[v]
                steps = i32(starts[i32(v + 1)] - first)
                weights, taken = moved(w, i32(first * step_bytes)), moved_words(places, first)
                fields = moved_words(records, i32(v * lanes * FIELDS))
                for out_y in range(out_h):
                    source = moved(padded, i32(out_y * strides[0]))
                    row = moved(y, i32(i32(n * out_h + out_y) * out_w * out_channels + v * lanes))
                    for number in range(i32(i32(out_w + pixels - 1) // i32(pixels))):
                        out_x = min(i32(number * pixels), i32(out_w - pixels))  # the last again, if need be
                        start = moved(source, i32(out_x * strides[1]))
                        target = moved(row, i32(out_x * out_channels))
                        if v < vectors - 1:
                            block(start, strides[1], taken, steps, weights, fields, target, out_channels, low, high)
                        else:
                            last_block(start, strides[1], taken, steps, weights, fields, target, out_channels,
                                       low, high)  # fmt: skip

    kernel.__name__ = f"{'picked' if picks else 'sparse'}_{shape.label}_{tail}_{sums}"
    return kernel
