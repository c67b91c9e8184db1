"""Kernels that skip zeros: CONV_2D and FULLY_CONNECTED over lists of each channel's weights that are not zero.

With NEON sixteen channels share a list (skipping_neon.py). Else a channel's list is entries of weights, whose last byte
says how far the entry's first input lies behind the one before, or, in the first entry, behind the window's start.
Longer ways take entries of zeros. So one pointer walks through the window, and each weight is used for several pixels
at constant distances. In front of the entries are two int32, how many times `multiple` entries there are, and the bias;
behind them, at the next multiple of 4 bytes, three: multiplier, term, shift. There the next channel's list follows: a
second pointer passes over all that a kernel needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from edgecompress_runtime.families.shared.scaling import Scaling
from edgecompress_runtime.families.shared.strip import strip_of
from edgecompress_runtime.families.shared.words import moved
from edgecompress_runtime.kernels.arithmetic import i32
from edgecompress_runtime.llvm.typed_numba import Pointer, Tuple, Word, Words, inline

PIXELS = (4, 2, 1)  # of a kernel's turn
FARTHEST = 255  # of a byte
HEAD, TAIL = 8, 12  # bytes in front of a channel's entries, and behind them

SkippingKind = tuple[int, bool]  # pixels, whether windows lie in the input itself


@dataclass(frozen=True, eq=False)
class Lists:
    """How a family walks through lists.

    inputs: weights of an entry. listed: how many entries there are in the lists of int8 [channels, places], and these,
    flat; None for what can't be listed. whole: whether an entry reads all `inputs` places from its first on. element,
    aligned, copy, blank: see strip_convolution.Blocks. block(pixels): a function for Numba, inlined: (window, list,
    target, bounds), a list's channels of `pixels` pixels, requantized and stored, returns where the list ends; window,
    target: an address, and how many bytes on the next pixel's is. channels: of a list; the last list's channels are
    the layer's last ones.
    """

    inputs: int
    listed: Callable[[np.ndarray, Scaling], tuple[int, np.ndarray] | None]
    whole: bool
    element: int
    aligned: int
    copy: Callable[..., Any]
    blank: Callable[..., Any]
    block: Callable[[int], Callable[..., Any]]
    channels: int = 1


def neighbours(inputs: int) -> Callable[[np.ndarray], np.ndarray]:
    """Entries of `inputs` weights of as many places, from a multiple of it on; ways are counted in that."""

    def entries(weights: np.ndarray) -> np.ndarray:
        groups = np.pad(weights, (0, -len(weights) % inputs)).reshape(-1, inputs)
        places = np.flatnonzero(groups.any(1))
        return with_ways(groups[places], places)

    return entries


def gathered(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Entries of `count` weights, and where their inputs lie behind the first of them: bytes."""

    def entries(weights: np.ndarray) -> np.ndarray:
        left, made, places = np.flatnonzero(weights), [], []
        while left.size:
            taken = left[:count][left[:count] - left[0] <= FARTHEST]
            values = np.stack([weights[taken], taken - left[0]])
            made.append(np.pad(values, ((0, 0), (0, count - taken.size))).reshape(-1))
            places.append(left[0])
            left = left[taken.size :]
        return with_ways(np.array(made, np.int64).reshape(-1, 2 * count), np.array(places, np.int64))

    return entries


def with_ways(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """[n, bytes] and the place of each -> int8 [entries, bytes + 1]."""
    ways = np.diff(places, prepend=0)
    far = np.maximum(ways - 1, 0) // FARTHEST  # entries of zeros in front
    entries = np.zeros((len(places) + far.sum(), values.shape[1] + 1), np.int64)
    entries[:, -1] = FARTHEST
    at = np.arange(len(places)) + np.cumsum(far)
    entries[at, :-1], entries[at, -1] = values, ways - FARTHEST * far
    return entries.astype(np.int8)


def each_its_own(
    entries: Callable[[np.ndarray], np.ndarray], multiple: int = 1
) -> Callable[[np.ndarray, Scaling], tuple[int, np.ndarray]]:
    """See Lists.listed: a list for each channel, whose entries are a multiple of so many."""

    def listed(weights: np.ndarray, scales: Scaling) -> tuple[int, np.ndarray]:
        parts, total = [], 0
        for channel, (bias, *scale) in zip(weights, scales.records()):
            found = entries(channel)
            total += len(found)
            found = np.pad(found, ((0, -len(found) % multiple), (0, 0)))
            padded = np.pad(found.reshape(-1), (0, -found.size % 4))
            parts += [words((len(found) // multiple, bias)), padded, words(scale)]
        return total, np.concatenate(parts)

    return listed


def words(values: Sequence[int] | np.ndarray) -> np.ndarray:
    """Integers as the bytes of int32: int8, flat."""
    return np.array(values, "<i4").view(np.int8)


def _place_of(lists: Lists) -> Callable[..., Any]:
    """A function for Numba, inlined: (list's number, channels) -> its first channel."""
    together = lists.channels

    @inline
    def alone(number: Word, channels: Word) -> Word:
        return number

    @inline
    def several(number: Word, channels: Word) -> Word:
        return min(i32(number * together), i32(channels - together))

    return alone if together == 1 else several


def _strip_kernel(lists: Lists, pixels: int) -> Callable[..., None]:
    """Over a strip (strip.py), for rows of `pixels` or more."""
    strip_rows, block = strip_of(lists.element, lists.copy, lists.blank), lists.block(pixels)
    element, aligned, together, place = lists.element, lists.aligned, lists.channels, _place_of(lists)

    def kernel(tensors: Tuple, strip: Pointer, geometry: Tuple, x_zero: Word, bounds: Words) -> None:
        """tensors: x, lists, y."""
        x, w, y = tensors
        size, window, out, stride, dilation, pads = geometry
        _, _, channels = size
        kernel_h, kernel_w = window
        out_h, out_w, out_channels = out
        step = i32(i32(i32(kernel_h * channels + aligned - 1) // i32(aligned) * aligned) * element)
        columns = i32((out_w - 1) * stride[1] + kernel_w)
        for out_y in range(out_h):
            top = i32(out_y * stride[0] - pads[0])
            strip_rows(x, strip, top, (size, kernel_h, dilation), (pads[1], columns, step), x_zero)
            row = moved(y, i32(out_y * out_w * out_channels))
            for number in range(i32(i32(out_w + pixels - 1) // i32(pixels))):
                out_x = min(i32(number * pixels), i32(out_w - pixels))  # the row's last ones again, if need be
                windows, part = moved(strip, i32(out_x * stride[1] * step)), w
                target = moved(row, i32(out_x * out_channels))
                for number in range(i32(i32(out_channels + together - 1) // i32(together))):
                    at = moved(target, place(number, out_channels))
                    part = block((windows, i32(stride[1] * step)), part, (at, out_channels), bounds)

    return kernel


def _rows_kernel(lists: Lists, pixels: int) -> Callable[..., None]:
    """For windows that follow one another in the input itself: `pixels` rows or more of `depth` values."""
    block, together, place = lists.block(pixels), lists.channels, _place_of(lists)

    def kernel(tensors: Tuple, sizes: Words, bounds: Words) -> None:
        """tensors: x, lists, y. sizes: rows, depth, units."""
        x, w, y = tensors
        rows, depth, units = sizes
        for number in range(i32(i32(rows + pixels - 1) // i32(pixels))):
            first = min(i32(number * pixels), i32(rows - pixels))
            windows, target, part = moved(x, i32(first * depth)), moved(y, i32(first * units)), w
            for number in range(i32(i32(units + together - 1) // i32(together))):
                part = block((windows, depth), part, (moved(target, place(number, units)), units), bounds)

    return kernel


def skipping_kernels(name: str, module: str, lists: Lists) -> dict[SkippingKind, Callable[..., None]]:
    """All kernels of a family's lists, to be imported from `module` by their names, which start with `name`."""
    kernels: dict[SkippingKind, Callable[..., None]] = {}
    for pixels, inside in product(PIXELS, (False, True)):
        kernel = (_rows_kernel if inside else _strip_kernel)(lists, pixels)
        kind = f"{name}_skipping_{'rows' if inside else 'strip'}_{pixels}"
        kernel.__name__ = kernel.__qualname__ = kind
        kernel.__module__ = module
        kernels[pixels, inside] = kernel
    return kernels


def by_name(kernels: dict[SkippingKind, Callable[..., None]]) -> dict[str, Callable[..., None]]:
    """For the `globals()` of the module that they are imported from."""
    return {kernel.__name__: kernel for kernel in kernels.values()}
