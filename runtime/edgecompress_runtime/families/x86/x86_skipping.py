"""The kernels of convolutions and fully connected layers whose weights are mostly zeros."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_blocks import Shape
from edgecompress_runtime.families.x86.x86_copies import moved_words, padded_copy
from edgecompress_runtime.families.x86.x86_layout import SkippingCut
from edgecompress_runtime.families.x86.x86_skipping_blocks import skipping_block
from edgecompress_runtime.families.x86.x86_vectors import FIELDS
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Words


@cache
def skipping(variant: Variant, body: Shape, last: Shape, cut: SkippingCut) -> Callable[..., None]:
    """The kernel that takes only the steps in which a vector of channels has weights that are not zero.

    last: of the last channels.
    """
    pixels, step_bytes, vectors = body.pixels, variant.bytes * (2 if cut.picks else 1), cut.vectors
    block_channels, block_records = body.vectors * variant.lanes, body.vectors * FIELDS * variant.lanes
    order_bytes = 4 * variant.lanes
    copied = padded_copy(variant, variant.element)
    block, last_block = (skipping_block(variant, shape, cut) for shape in (body, last))

    def kernel(tensors: Tuple, padded: Pointer, copy: Tuple, geometry: Tuple, bounds: Words) -> None:
        """tensors: x, lists, records, y; lists: weights, places, starts, counts, order of `x86_layout.Steps`. geometry:
        out and strides. The rest: as in `blocked`."""
        x, lists, records, y = tensors
        w, places, starts, counts, order = lists
        images, image, size, pads, zero = copy
        out, strides = geometry
        out_h, out_w, out_channels = out
        blocks = i32(i32(out_channels + block_channels - 1) // i32(block_channels))
        for n in range(images):
            copied(moved(x, i32(n * image[0] * image[1] * image[2])), padded, image, size, pads, zero)
            for j in range(blocks):
                weights = moved(w, i32(starts[i32(2 * j)] * step_bytes))
                taken = moved_words(places, starts[i32(2 * j + 1)])
                steps = taken, moved_words(counts, i32(j * vectors)), weights
                lie = moved(order, i32(j * order_bytes))
                fields = moved_words(records, i32(j * block_records)), lie
                for out_y in range(out_h):
                    source = moved(padded, i32(out_y * strides[0]))
                    row = moved(y, i32(i32(n * out_h + out_y) * out_w * out_channels + j * block_channels))
                    for number in range(i32(i32(out_w + pixels - 1) // i32(pixels))):
                        out_x = min(i32(number * pixels), i32(out_w - pixels))  # the last again, if need be
                        start = moved(source, i32(out_x * strides[1])), strides[1]
                        target = moved(row, i32(out_x * out_channels)), out_channels
                        if j < blocks - 1:
                            block(start, steps, fields, target, bounds)
                        else:
                            last_block(start, steps, fields, target, bounds)

    kernel.__name__ = f"{f'picked{cut.window}' if cut.picks else 'skipping'}_{body.label}_{last.label}_{cut.sums}"
    return kernel
