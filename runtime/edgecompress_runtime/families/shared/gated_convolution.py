"""CONV_2D whose channels an input of its own opens and closes, on top of a family's blocks.

A gate is constant for a sample. So the open output channels are listed once, and only theirs are computed; of an input
that comes gated itself, the strip takes the open channels alone, and so do the weights, which are gathered into a bank
once and read for every pixel. The family's blocks see an ordinary, smaller convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.arranged_convolution import BANK_BYTES, Arrangement, channel_groups, trailing
from edgecompress_runtime.families.shared.gate import Gate, always_open, open_blocks
from edgecompress_runtime.families.shared.layer import layer_scaling
from edgecompress_runtime.families.shared.step import Scratch, Step
from edgecompress_runtime.families.shared.strip import strip_of
from edgecompress_runtime.families.shared.strip_convolution import Blocks
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import activation_range, i32
from edgecompress_runtime.kernels.window import padding
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, inline
from edgecompress_runtime.options import ConvolutionOptions
from edgecompress_runtime.plan import Tensor

RECORD = 4  # int32 of a channel's record


def _chosen_rows(blocks: Blocks) -> Callable[..., None]:
    copy, blank, element = blocks.copy, blocks.blank, blocks.element

    @inline
    def chosen_rows(x: Pointer, strip: Pointer, top: Word, rows: Tuple, across: Tuple, chosen: Tuple) -> None:
        """As strip.strip_rows, of the channels of some blocks. chosen: their first channels, their number, their size,
        and the zero point."""
        size, kernel_h, dilation = rows
        left, columns, step = across
        firsts, count, length, zero = chosen
        height, width, every = size
        channels = i32(count * length)
        for ky in range(kernel_h):
            in_y = i32(top + ky * dilation)
            inside = min(width, i32(columns - left)) if 0 <= in_y < height else i32(0)
            source, part = moved(x, i32(in_y * width * every)), moved(strip, i32(ky * channels * element))
            for i in range(left):
                blank(moved(part, i32(i * step)), channels, zero)
            for i in range(inside):
                target = moved(part, i32((i + left) * step))
                for k in range(count):
                    copy(moved(source, i32(i * every + firsts[k])), target, length)
                    target = moved(target, i32(length * element))
            for i in range(i32(left + inside), columns):
                blank(moved(part, i32(i * step)), channels, zero)

    return chosen_rows


def _filled_bank(blocks: Blocks) -> Callable[..., None]:
    copy, element, bc = blocks.copy, blocks.element, blocks.channels

    @inline
    def filled_bank(places: Tuple, opened: Pointer, span: Tuple, taps: Word, rows: Tuple, chosen: Tuple) -> None:
        """The weights of open input channels, of the open groups of a span. places: weights, bank. rows: of weights in
        a group, channels in one, inputs. chosen: first channels of open blocks, their number, their size."""
        w, target = places
        first, after = span
        count, each, channels = rows
        firsts, number, size = chosen
        length = i32(size * each)
        for k in range(first, after):
            group = moved(w, i32(opened[k] * taps * channels * bc))
            for tap in range(i32(count * taps)):
                source = moved(group, i32(tap * channels * each))
                for b in range(number):
                    copy(moved(source, i32(firsts[b] * each)), target, length)
                    target = moved(target, i32(length * element))

    return filled_bank


def _opened_records(bc: int, bias_step: int) -> Callable[..., None]:
    @inline
    def opened_records(tensors: Tuple, records: Pointer, opened: Tuple, read: Tuple, groups: Word) -> None:
        """The records of open groups, whose biases make up for closed inputs: these are left out of the sums, and the
        bias expects their zero points there. opened: numbers of groups, how many."""
        original, folds = tensors
        numbers, count = opened
        values, size, _, closed = read
        for k in range(count):
            group, target = numbers[k], i32(k * bc * RECORD)
            for i in range(i32(bc * RECORD)):
                records[i32(target + i)] = original[i32(group * bc * RECORD + i)]
            for b in range(size):
                if values[b] == closed:
                    for i in range(bc):
                        at = i32(target + i * bias_step)
                        records[at] = i32(records[at] + folds[i32(i32(b * groups + group) * bc + i)])

    return opened_records


def _open_groups(bc: int) -> Callable[..., Word]:
    @inline
    def open_groups(write: Tuple, opened: Pointer, groups: Word, last: Word) -> Word:
        """Lists the groups of output channels that are open, and returns how many there are."""
        count = i32(0)
        for group in range(groups):
            if write[0][i32(min(i32(group * bc), last) // write[2])] != write[3]:
                opened[count] = i32(group)
                count = i32(count + 1)
        return count

    return open_groups


def _computed_row(blocks: Blocks) -> Callable[..., None]:
    element, block, bc = blocks.element, blocks.block, blocks.channels

    @inline
    def computed_row(
        strip: Pointer, row: Pointer, groups: Tuple, weights: Tuple, records: Pointer, sizes: Tuple, bounds: Tuple
    ) -> None:
        """groups: numbers of the open ones, a span of them, the last group's first channel. weights: plain ones, bank,
        whether it is used, of a channel. sizes: pixels, of a block, bytes from pixel to pixel of the strip and of y in
        a block, and in all."""
        opened, first, after, last_o = groups
        w, bank, banked, depth = weights
        out_w, each, steps, strides = sizes
        for pixel in range(i32(i32(out_w + each - 1) // i32(each))):
            out_x = min(i32(pixel * each), i32(out_w - each))  # the row's last ones again, if need be
            window, target = moved(strip, i32(out_x * strides[0])), moved(row, i32(out_x * strides[1]))
            for k in range(first, after):
                group = opened[k]
                part = (
                    moved(bank, i32(i32(k - first) * depth * bc * element))
                    if banked > 0
                    else moved(w, i32(group * depth * bc))
                )
                at = moved(target, min(i32(group * bc), last_o))
                block((window, steps[0]), part, depth, (records, i32(k)), (at, steps[1]), bounds)

    return computed_row


@inline
def closed_row(row: Pointer, n: Word, zero: Word) -> None:
    """n zero points, into which open channels are written."""
    for i in range(n):
        row[i] = zero


def gated_convolution(name: str, module: str, blocks: Blocks, bias_step: int) -> Callable[..., None]:
    """The kernel of a family, to be imported as `name` from `module`. bias_step: int32 from the bias of one channel of
    a group to the next in its records."""
    element, aligned, bc, pixels = blocks.element, blocks.aligned, blocks.channels, blocks.pixels
    strip_rows, chosen_rows = strip_of(element, blocks.copy, blocks.blank), _chosen_rows(blocks)
    filled_bank, computed_row, open_groups = _filled_bank(blocks), _computed_row(blocks), _open_groups(bc)
    opened_records = _opened_records(bc, bias_step)

    def kernel(
        tensors: Tuple, gates: Tuple, scratch: Tuple, geometry: Tuple, zeros: Tuple, bounds: Tuple, held: Tuple
    ) -> None:
        """tensors: x, weights, records, folds, y. gates: of x and of y, of `Gate.operand`. scratch: strip, bank,
        records, groups of open channels, open blocks. zeros: of x and y. held: groups in the bank, 0 where weights are
        read in flash; rows of a group's weights."""
        (x, w, records, folds, y), (read, write) = tensors, gates
        strip, bank, own, opened, listed = scratch
        size, (kernel_h, kernel_w), (out_h, out_w, out_channels), stride, dilation, pads = geometry
        groups, last_o = i32(i32(out_channels + bc - 1) // i32(bc)), i32(out_channels - bc)
        number, listed[0] = i32(1), i32(0)
        if read[1] > 1:  # else all are open, which LLVM sees
            number = open_blocks(read, listed)
        count, inputs = open_groups(write, opened, groups, last_o), i32(number * read[2])
        opened_records((records, folds), own, (opened, count), read, groups)
        column = i32(i32(kernel_h * inputs + aligned - 1) // i32(aligned) * aligned)
        step, depth = i32(column * element), i32(column * kernel_w)
        rows, across = (size, kernel_h, dilation), (pads[1], i32((out_w - 1) * stride[1] + kernel_w), step)
        strides = i32(stride[1] * step), out_channels
        # where a row is shorter than a block, its pixels are computed one by one, each several times
        each, steps = (i32(pixels), strides) if out_w >= pixels else (i32(1), (i32(0), i32(0)))
        sizes = out_w, each, steps, strides
        together = held[0] if held[0] > 0 else groups
        for first in range(i32(0), max(count, i32(1)), together):
            after = min(i32(first + together), count)
            if held[0] > 0:
                weights, chosen = (held[1], i32(bc // held[1]), size[2]), (listed, number, read[2])
                filled_bank((w, bank), opened, (first, after), i32(kernel_h * kernel_w), weights, chosen)
            for out_y in range(out_h):
                top, row = i32(out_y * stride[0] - pads[0]), moved(y, i32(out_y * out_w * out_channels))
                if read[1] == 1 and count > 0:
                    strip_rows(x, strip, top, rows, across, zeros[0])
                elif count > 0:
                    chosen_rows(x, strip, top, rows, across, (listed, number, read[2], zeros[0]))
                if first == 0 and count < groups:
                    closed_row(row, i32(out_w * out_channels), zeros[1])
                computed_row(strip, row, (opened, first, after, last_o), (w, bank, held[0], depth), own, sizes, bounds)

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__module__ = module
    return kernel


@dataclass(frozen=True)
class GatedArrangement:
    """kernel: of `gated_convolution`. usual: the family's arrangement for layers without gates."""

    kernel: Callable[..., None]
    usual: Arrangement

    def __call__(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Tensor],
        options: ConvolutionOptions,
        gates: tuple[Gate | None, Gate | None],
    ) -> list[Step] | None:
        """None for what the usual arrangement has none for, and for blocks that cut through its groups or runs."""
        usual, x, w, (y,), (read, write) = self.usual, inputs[0], inputs[1], outputs, gates
        if not x.is_int8 or w.data is None or w.data.min() < usual.least:
            return None
        (out_channels, kernel_h, kernel_w, depth), (batch, _, _, channels) = w.shape, x.shape
        stride, dilation, bc = options.strides, options.dilations, usual.channels
        if batch != 1 or depth != channels or dilation[1] != 1 or out_channels < bc or (channels % max(usual.run, 1)):
            return None
        if usual.aligned > 4 or (usual.element > 1 and channels % usual.aligned):
            return None
        if (read and read.block % max(usual.run, 1)) or (write and (write.block % bc or out_channels % write.block)):
            return None
        if (scales := layer_scaling(inputs, y)) is None:
            return None
        if read is None or read.block == channels:  # of one block it is not worth while
            read = always_open(channels)
        write = write or always_open(out_channels)
        pads = padding(options.padding, x.shape[1:3], y.shape[1:3], w.shape[1:3], stride, dilation)
        groups = channel_groups(out_channels, bc)
        count, size = len(groups) // bc, kernel_h * kernel_w * channels
        columns = w.data.transpose(0, 2, 1, 3).reshape(out_channels, size)[groups]
        run = usual.run or size
        arranged = columns.reshape(count, bc, size // run, run).transpose(0, 2, 1, 3).reshape(-1)
        sums = columns.reshape(count * bc, -1, channels // read.block, read.block).sum((1, 3), dtype=np.int32)
        banked = usual.widened or channels > read.block
        parts = -(-count // max(BANK_BYTES // (bc * usual.element * size), 1)) if banked else 1
        together = -(-count // parts) if banked else 0
        scratch = (
            Scratch(((y.shape[2] - 1) * stride[1] + kernel_w) * kernel_h * channels * usual.element),
            Scratch(together * bc * size * usual.element),
            Scratch(count * bc * RECORD * 4, np.int32),
            Scratch(count * 4, np.int32),
            Scratch(channels // read.block * 4, np.int32),
        )
        tensors = x, arranged, usual.records(scales, groups).reshape(-1), (x.zero * sums.T).reshape(-1), y
        geometry = x.shape[1:], (kernel_h, kernel_w), y.shape[1:], stride, dilation[0], pads
        held = together, 1 if usual.run else bc
        operands = read.operand(channels), write.operand(out_channels)
        arguments = tensors, operands, scratch, geometry, (x.zero, y.zero), activation_range(options, y), held
        overlap = {x: trailing(x.shape, y.shape, stride[0], pads[0])} if parts == 1 else {}
        return [Step(self.kernel, arguments, overlap)]
