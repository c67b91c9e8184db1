"""The kernels of convolutions and fully connected layers whose weights are mostly zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from edgecompress_runtime.host.blocks import Shape
from edgecompress_runtime.host.copies import copy_row, moved_words, padded_copy
from edgecompress_runtime.host.sparse_blocks import expanding_block, sparse_block
from edgecompress_runtime.host.variants import Variant
from edgecompress_runtime.host.vectors import FIELDS
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.primitives.words import moved

EXPANDED_SUMS = 4  # of a pixel, taken in turn


@cache
def sparse(variant: Variant, shape: Shape, tail: int, sums: int) -> Callable[..., None]:
    """The kernel that takes only the steps in which a vector of channels has weights that are not zero.

    tail: channels of the last vector. sums: of `blocks.sparse_block`.
    """
    lanes, pixels = variant.lanes, shape.pixels
    copied = padded_copy(variant, variant.element)
    block, last_block = (sparse_block(variant, replace(shape, tail=count), sums) for count in (lanes, tail))

    def kernel(x, w, places, starts, records, y, padded, images, image, size, pads, zero, out, strides, low, high):
        """places, starts: of `layout.nonzero_steps`. The rest: as in `blocked`."""
        out_h, out_w, out_channels = out
        vectors = i32(i32(out_channels + lanes - 1) // i32(lanes))
        for n in range(images):
            copied(moved(x, i32(n * image[0] * image[1] * image[2])), padded, image, size, pads, zero)
            for v in range(vectors):
                first = starts[v]
                steps = i32(starts[i32(v + 1)] - first)
                weights, taken = moved(w, i32(first * lanes * 4)), moved_words(places, first)
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

    kernel.__name__ = f"sparse_{shape.label}_{tail}_{sums}"
    return kernel


@cache
def expanding(variant: Variant, shape: Shape, tail: int) -> Callable[..., None]:
    """The kernel for one pixel and large weights with zeros anywhere. tail: channels of the last vector."""
    lanes, copy = variant.lanes, copy_row(variant, variant.element)
    block, last_block = (expanding_block(variant, replace(shape, tail=count), EXPANDED_SUMS) for count in (lanes, tail))

    def kernel(x, w, masks, starts, records, y, copied, depth, zero, channels, steps, low, high):
        """masks, starts, steps: of `layout.packed`."""
        vectors = i32(i32(channels + lanes - 1) // i32(lanes))
        copy(x, copied, depth, zero)
        for v in range(vectors):
            weights, places = moved(w, starts[v]), moved_words(masks, i32(v * steps * 2))
            fields, target = moved_words(records, i32(v * lanes * FIELDS)), moved(y, i32(v * lanes))
            if v < vectors - 1:
                block(copied, places, steps, weights, fields, target, low, high)
            else:
                last_block(copied, places, steps, weights, fields, target, low, high)

    kernel.__name__ = "expanding"
    return kernel
