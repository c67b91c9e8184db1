"""Exponential Golomb codes (J. Teuhola, 1978) of whole numbers near zero, as biases are: 32 bits become 8 to 18.

A number takes about 2 log2 of its size, with an order that suits most of them about as many bits as the entropy of
a Laplacian of that width: no table, so that a few dozen numbers are enough to gain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecompress_runtime.pack.codec import Buffer, Codec, Encoded, register
from edgecompress_runtime.pack.errors import PackError
from edgecompress_runtime.pack.fields import integer, member

MOST = 65_536  # numbers: they are decoded one by one


@register
class Golomb(Codec):
    """Arrays of int16 or int32."""

    name = "golomb"
    order = 50

    def encode(self, array: np.ndarray) -> Encoded | None:
        """By the order that gives the fewest bytes."""
        if array.dtype not in (np.int16, np.int32) or array.size > MOST:
            return None
        signed = array.reshape(-1).astype(np.int64)
        folded = np.where(signed < 0, -2 * signed - 1, 2 * signed)
        order = min(range(8 * array.itemsize), key=lambda k: int(_widths(folded, k).sum()) * 2 - k * folded.size)
        width = _widths(folded, order)  # of the digits behind the leading one
        starts = np.concatenate([[0], np.cumsum(2 * width + 1 - order)])
        ones = starts[:-1] + width - order
        bits = np.zeros(starts[-1], np.uint8)
        bits[ones] = 1
        for digit in range(int(width.max(initial=0))):
            there = width > digit
            bits[ones[there] + 1 + digit] = (folded[there] + (1 << order)) >> digit & 1
        return Encoded(self.name, {"order": order}, np.packbits(bits, bitorder="little").tobytes())

    def decode(self, data: Buffer, params: dict[str, Any], out: np.ndarray) -> np.ndarray:
        """Code after code, to the end of the last byte."""
        if out.dtype not in (np.int16, np.int32):
            raise PackError(f"golomb: holds int16 and int32, not {out.dtype}")
        most = 8 * out.itemsize  # digits behind the leading one
        order = member(params, "order", integer, 0, most - 1)
        if out.size > MOST:
            raise PackError(f"golomb: holds at most {MOST} numbers, not {out.size}")
        if out.size > 8 * len(data):  # before memory is taken for each
            raise PackError(f"golomb: {len(data)} bytes do not hold {out.size} numbers")
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        ones, width = _leading_ones(bits.tobytes(), out.size, order)
        end = int(ones[-1] + width[-1] + 1) if out.size else 0
        if width.max(initial=0) > most or (end + 7) // 8 != len(data):
            raise PackError(f"golomb: {len(data)} bytes do not hold {out.size} numbers of {most} bits")
        folded = (np.int64(1) << width) - (1 << order)
        for digit in range(int(width.max(initial=0))):
            there = width > digit
            folded[there] += bits[ones[there] + 1 + digit].astype(np.int64) << digit
        if folded.max(initial=0) >> most:
            raise PackError(f"golomb: a number has more than {most} bits")
        out[...] = np.where(folded & 1, -(folded + 1) // 2, folded // 2).reshape(out.shape)
        return out


def _widths(folded: np.ndarray, order: int) -> np.ndarray:
    """Digits of folded + 2^order behind the leading one: int64 [n], at least `order`."""
    return np.frexp((folded + (1 << order)).astype(np.float64))[1].astype(np.int64) - 1


def _leading_ones(bits: bytes, count: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each code's first one is, and how many digits follow it: int64 [count] both. bits: a byte each."""
    ones, width, at = np.empty(count, np.int64), np.empty(count, np.int64), 0
    for i in range(count):
        one = bits.find(1, at)
        if one < 0:
            raise PackError(f"golomb: {len(bits) // 8} bytes end after {i} of {count} numbers")
        ones[i], width[i] = one, one - at + order
        at = one + 1 + one - at + order
    return ones, width
