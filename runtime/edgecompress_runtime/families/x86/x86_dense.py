"""The kernel of convolutions and fully connected layers in blocks, with all weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.families.x86.variants import Variant
from edgecompress_runtime.families.x86.x86_blocks import Shape, dot_block
from edgecompress_runtime.families.x86.x86_copies import moved_words, padded_copy
from edgecompress_runtime.families.x86.x86_vectors import FIELDS
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Words


@cache
def blocked(variant: Variant, body: Shape, last: Shape) -> Callable[..., None]:
    """The kernel for blocks of these shapes; `last` for the last channels of a group."""
    element, lanes = variant.element, variant.lanes
    copied, block, last_block = padded_copy(variant, element), dot_block(variant, body), dot_block(variant, last)
    pixels, block_channels, block_records = body.pixels, body.vectors * lanes, body.vectors * FIELDS * lanes
    same = body == last

    def kernel(tensors: Tuple, padded: Pointer, copy: Tuple, geometry: Tuple, bounds: Words) -> None:
        """tensors: x, weights, records, y. copy: images, an image's (height, width, channels), size of the padded
        image, padding in front, zero point. geometry: groups, window, out, strides. groups: (number, bytes of a pixel,
        bytes of weights, records). window: (rows, row step, columns, column step, turns). out: (height, width,
        channels, channels of a group, blocks of a group, bytes of a block's weights). strides: bytes from row to row
        and from pixel to pixel."""
        x, w, records, y = tensors
        images, image, size, pads, zero = copy
        groups, window, out, strides = geometry
        out_h, out_w, out_channels, group_channels, blocks, block_weights = out
        for n in range(images):
            copied(moved(x, i32(n * image[0] * image[1] * image[2])), padded, image, size, pads, zero)
            for g in range(groups[0]):
                for j in range(blocks):
                    weights = moved(w, i32(g * groups[2] + j * block_weights))
                    fields = moved_words(records, i32(g * groups[3] + j * block_records))
                    for out_y in range(out_h):
                        source = moved(padded, i32(out_y * strides[0] + g * groups[1]))
                        channel = i32(g * group_channels + j * block_channels)
                        row = moved(y, i32(i32(n * out_h + out_y) * out_w * out_channels + channel))
                        for number in range(i32(i32(out_w + pixels - 1) // i32(pixels))):
                            out_x = min(i32(number * pixels), i32(out_w - pixels))  # the last again, if need be
                            start = moved(source, i32(out_x * strides[1])), strides[1]
                            target = moved(row, i32(out_x * out_channels)), out_channels
                            if same or j < blocks - 1:
                                block(start, window, (weights, fields), target, bounds)
                            else:
                                last_block(start, window, (weights, fields), target, bounds)

    kernel.__name__ = f"blocked_{body.label}" + ("" if same else f"_{last.label}")
    return kernel
